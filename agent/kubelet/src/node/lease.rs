//! The node's lease in kube-node-lease: renewed every ten seconds, it says that the kubelet lives.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::Node,
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference},
};
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::session::{CallError, Session, bounded};

const NAMESPACE: &str = "kube-node-lease";
const EVERY: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);
const DURATION_SECONDS: i32 = 40;

/// Renews for ever.
pub(crate) async fn keep(session: Arc<Session>, node: String) {
    loop {
        let pause = match renew(&session, &node).await {
            Ok(()) => EVERY,
            Err(error) => {
                tracing::warn!(%error, "the lease was not renewed");
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn renew(session: &Session, node: &str) -> Result<(), CallError> {
    let api: Api<Lease> = Api::namespaced(session.client(), NAMESPACE);
    let now = MicroTime(Timestamp::now());
    let patch = json!({"spec": {
        "holderIdentity": node,
        "leaseDurationSeconds": DURATION_SECONDS,
        "renewTime": now,
    }});
    match bounded(api.patch(node, &PatchParams::default(), &Patch::Merge(patch))).await {
        Err(error) if error.code() == Some(404) => {}
        other => return other.map(|_| ()),
    }
    // Owned by the node as it is now: it may have been deleted and registered again.
    let nodes: Api<Node> = Api::all(session.client());
    let uid = bounded(nodes.get(node)).await?.metadata.uid.unwrap_or_default();
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(node.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: node.to_owned(),
                uid,
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: Some(DURATION_SECONDS),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    bounded(api.create(&PostParams::default(), &lease)).await.map(|_| ())
}
