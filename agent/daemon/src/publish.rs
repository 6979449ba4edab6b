//! Publishes this node's `NodeEndpoints`: its address, its range, its pods. Changes are coalesced; the API being away
//! only delays them.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use skep_api::{NodeEndpoints, NodeEndpointsSpec, PodEndpoint};
use skep_model::{NamespacedName, NodeName};
use skep_runtime::Backoff;
use tokio::sync::watch;

use crate::facts::{OwnNode, PodFacts};

/// Where `skep status` finds the state of the node's data path.
pub(crate) const ANNOTATION: &str = "skep.dev/datapath";
/// How long changes are gathered before they are written.
const COALESCE: Duration = Duration::from_millis(25);

/// What is published.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Publication {
    /// The node's pods.
    pub(crate) spec: NodeEndpointsSpec,
    /// Content of [`ANNOTATION`].
    pub(crate) datapath: String,
    /// How often the object was found missing; each time it is written again.
    pub(crate) losses: u64,
}

/// The object's spec from what is attached and what the API says of those pods.
pub(crate) fn spec(
    own: OwnNode,
    attached: &[(NamespacedName, IpAddr)],
    pods: &BTreeMap<NamespacedName, PodFacts>,
) -> NodeEndpointsSpec {
    let mut endpoints: Vec<PodEndpoint> = attached
        .iter()
        .map(|(name, ip)| {
            let facts = pods.get(name).cloned().unwrap_or_default();
            PodEndpoint {
                ip: ip.to_string(),
                namespace: name.namespace.clone(),
                name: name.name.clone(),
                labels: facts.labels,
                service_account: facts.service_account,
            }
        })
        .collect();
    endpoints.sort_by(|one, other| {
        (&one.namespace, &one.name, &one.ip).cmp(&(&other.namespace, &other.name, &other.ip))
    });
    NodeEndpointsSpec {
        node_ip: own.addresses().next().map(|ip| ip.to_string()).unwrap_or_default(),
        pod_cidrs: own.ranges().map(|range| range.to_string()).collect(),
        endpoints,
    }
}

/// Writes every publication that `wanted` holds, the newest only, for ever.
pub(crate) async fn run(client: Client, name: NodeName, mut wanted: watch::Receiver<Publication>) {
    let api: Api<NodeEndpoints> = Api::all(client);
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
    let mut written = None;
    loop {
        tokio::time::sleep(COALESCE).await;
        let publication = wanted.borrow_and_update().clone();
        if !publication.spec.node_ip.is_empty() && written.as_ref() != Some(&publication) {
            match write(&api, name.as_str(), &publication).await {
                Ok(()) => {
                    written = Some(publication);
                    backoff.reset();
                }
                Err(error) => {
                    let wait = backoff.next_delay();
                    tracing::warn!(%error, ?wait, "cannot publish this node's pods, will retry");
                    tokio::time::sleep(wait).await;
                    continue;
                }
            }
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

async fn write(api: &Api<NodeEndpoints>, name: &str, publication: &Publication) -> kube::Result<()> {
    let annotations = json!({ANNOTATION: publication.datapath});
    let patch = json!({"metadata": {"annotations": annotations}, "spec": publication.spec});
    match api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let mut object = NodeEndpoints::new(name, publication.spec.clone());
            let annotation = (ANNOTATION.to_owned(), publication.datapath.clone());
            object.metadata.annotations = Some([annotation].into());
            api.create(&PostParams::default(), &object).await.map(|_| ())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_published_before_its_labels_are_known() {
        let own = OwnNode::v4([10, 89, 0, 11].into(), "10.244.0.0/24".parse().unwrap());
        let name = NamespacedName::new("default", "web");
        let attached = [(name.clone(), IpAddr::from([10, 244, 0, 2]))];
        let early = spec(own, &attached, &BTreeMap::new());
        assert_eq!((early.endpoints[0].ip.as_str(), early.endpoints[0].labels.len()), ("10.244.0.2", 0));
        let facts =
            PodFacts { labels: [("app".into(), "web".into())].into(), service_account: "default".into() };
        let late = spec(own, &attached, &[(name, facts)].into());
        assert_eq!(late.endpoints[0].labels["app"], "web");
    }
}
