//! The shell of the pod garbage collector: a look around every twenty seconds.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;

use super::plan::{Quarantine, Reason, plan};
use crate::context::Context;
use crate::error::{ControllerError, unless_gone};
use crate::pods;

const PERIOD: Duration = Duration::from_secs(20);

/// Removes pods that nobody else will.
pub(crate) struct PodGcController {
    context: Arc<Context>,
}

impl PodGcController {
    /// A collector over the shared stores.
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        Self { context: context.clone() }
    }

    /// Works until dropped.
    pub(crate) async fn run(self) {
        let mut quarantine = Quarantine::default();
        let mut clock = tokio::time::interval(PERIOD);
        loop {
            clock.tick().await;
            let informers = &self.context.informers;
            let (pods, nodes) = (informers.pods.store().list(), informers.nodes.store().list());
            for (pod, reason) in plan(&pods, &nodes, &mut quarantine, Timestamp::now()) {
                if let Err(error) = self.remove(&pod, reason).await {
                    tracing::info!(pod = pod.name_any(), ?reason, %error, "garbage pod not removed; will retry");
                }
            }
        }
    }

    async fn remove(&self, pod: &Pod, reason: Reason) -> Result<(), ControllerError> {
        if reason == Reason::NodeGone && self.node_exists(pod).await? {
            return Ok(());
        }
        let api = self.context.namespaced::<Pod>(&pod.namespace().unwrap_or_default());
        let name = pod.name_any();
        if matches!(reason, Reason::NodeGone | Reason::OutOfService) && !pods::is_finished(pod) {
            let condition = json!({
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "DeletionByPodGC",
                "message": "The node of the pod is gone",
                "lastTransitionTime": Timestamp::now().to_string(),
            });
            let patch = json!({
                "metadata": {"uid": pod.uid()},
                "status": {"phase": "Failed", "conditions": [condition]},
            });
            unless_gone(api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await)?;
        }
        let same = Preconditions { uid: pod.uid(), resource_version: None };
        let params = DeleteParams::default().grace_period(0).preconditions(same);
        unless_gone(api.delete(&name, &params).await)?;
        tracing::info!(pod = name, ?reason, "garbage pod removed");
        Ok(())
    }

    /// Asks the API itself: a store may lag.
    async fn node_exists(&self, pod: &Pod) -> Result<bool, ControllerError> {
        let Some(node) = pods::node_of(pod) else { return Ok(false) };
        Ok(self.context.cluster::<Node>().get_opt(node).await?.is_some())
    }
}
