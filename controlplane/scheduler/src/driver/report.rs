//! Tells users what became of a pod: events, and the PodScheduled condition.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use skep_informer::{EventType, Recorder};

/// Writes events and conditions.
pub(super) struct Reporter {
    /// For the condition.
    pub(super) client: Client,
    /// For the events.
    pub(super) recorder: Recorder,
}

impl Reporter {
    /// The pod has a node.
    pub(super) fn scheduled(&self, pod: &Pod, node: &str) {
        let message = format!(
            "Successfully assigned {}/{} to {node}",
            pod.namespace().unwrap_or_default(),
            pod.name_any()
        );
        self.recorder.publish(pod, EventType::Normal, "Scheduled", message);
    }

    /// The pod fits nowhere.
    pub(super) async fn unschedulable(&self, pod: &Pod, message: &str) {
        self.recorder.publish(pod, EventType::Warning, "FailedScheduling", message);
        if has_condition(pod, message) {
            return;
        }
        let now = Timestamp::now();
        let condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": transition(pod).unwrap_or(now).to_string(),
        });
        self.patch_status(pod, json!({"conditions": [condition]})).await;
    }

    /// Room is being made for the pod on `node`.
    pub(super) async fn nominated(&self, pod: &Pod, node: &str) {
        self.patch_status(pod, json!({"nominatedNodeName": node})).await;
    }

    /// The pod has to go for a more important one, known by its uid.
    pub(super) async fn preempted(&self, pod: &Pod, by: &str, node: &str) {
        let message = format!("Preempted by pod {by} on node {node}");
        self.recorder.publish(pod, EventType::Normal, "Preempted", message);
        let condition = json!({
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": "A pod of higher priority needs the room",
            "lastTransitionTime": Timestamp::now().to_string(),
        });
        self.patch_status(pod, json!({"conditions": [condition]})).await;
    }

    async fn patch_status(&self, pod: &Pod, status: Value) {
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": status});
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let params = PatchParams::default();
        if let Err(error) = api.patch_status(&pod.name_any(), &params, &Patch::Strategic(patch)).await {
            tracing::debug!(pod = pod.name_any(), %error, "status of the pod not written");
        }
    }
}

fn has_condition(pod: &Pod, message: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.message.as_deref() == Some(message)
    })
}

/// Since when the condition is False already.
fn transition(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|condition| condition.type_ == "PodScheduled")?;
    let time = condition.last_transition_time.as_ref()?;
    (condition.status == "False").then_some(time.0)
}
