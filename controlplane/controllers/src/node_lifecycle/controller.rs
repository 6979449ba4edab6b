//! The shell of the node lifecycle controller.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, ObjectReference, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;
use serde_json::{Value, json};
use skep_informer::{Change, EventType, ObjectKey, Outcome, WorkQueue, work};

use super::eviction::{Fate, fate};
use super::health::{Health, is_ready, ready, unknown_conditions};
use super::taints::{self, Evictions};
use crate::context::{BY_NODE, Context};
use crate::error::{ControllerError, all_steps, unless_gone};
use crate::pods;

/// Watches over nodes.
pub(crate) struct NodeLifecycleController {
    context: Arc<Context>,
    queue: Arc<WorkQueue<ObjectKey>>,
    health: Mutex<HashMap<String, Health>>,
}

impl NodeLifecycleController {
    /// Registers for nodes, their leases and their pods.
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let informers = &context.informers;
        let (sink, nodes) = (queue.clone(), informers.nodes.store().clone());
        informers.nodes.on_change(move |change| {
            sink.add(ObjectKey::of(&**change.latest()));
            if let Change::Updated { old, new } = &change
                && is_ready(old) == is_ready(new)
            {
                return;
            }
            // Whether anybody is driven off depends on all nodes together.
            for key in nodes.keys() {
                sink.add(key);
            }
        });
        let sink = queue.clone();
        informers.leases.on_change(move |change| sink.add(ObjectKey::cluster(change.latest().name_any())));
        let sink = queue.clone();
        informers.pods.on_change(move |change| {
            let before = change.states().next().and_then(|pod| pods::node_of(pod));
            if let Change::Updated { .. } = change
                && before.is_some()
            {
                return;
            }
            if let Some(node) = pods::node_of(change.latest()) {
                sink.add(ObjectKey::cluster(node));
            }
        });
        Self { context: context.clone(), queue, health: Mutex::default() }
    }

    /// Works until dropped.
    pub(crate) async fn run(self) {
        work("node-lifecycle", &self.queue, 4, |key| self.reconcile(key)).await;
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ControllerError> {
        let informers = &self.context.informers;
        let Some(node) = informers.nodes.store().get(&key) else {
            self.health.lock().remove(&key.name);
            return Ok(Outcome::Done);
        };
        let now = Timestamp::now();
        let left = self.observe(&node, now);
        if left.is_none()
            && let Some(conditions) = unknown_conditions(&node, now)
        {
            return self.declare_lost(&node, conditions).await;
        }
        if let Some(taints) = taints::plan(&node, self.evictions(), now) {
            self.write_taints(&node, json!(taints)).await?;
            return Ok(Outcome::After(Duration::from_millis(200)));
        }
        let pods = informers.pods.store().by_index(BY_NODE, &key.name);
        // A kubelet that still answers speaks for its pods itself, whatever it says about its node.
        if ready(&node).is_some_and(|ready| ready.status == "Unknown") {
            let unready = pods.iter().filter(|pod| pods::is_ready(pod) && !pods::is_terminating(pod));
            let marks = unready.map(|pod| self.mark_unready(pod));
            all_steps(join_all(marks).await)?;
        }
        let next = self.evict(&node, &pods, now).await?;
        Ok(left.into_iter().chain(next).min().map_or(Outcome::Done, Outcome::After))
    }

    fn observe(&self, node: &Node, now: Timestamp) -> Option<Duration> {
        let name = node.name_any();
        let lease = self
            .context
            .informers
            .leases
            .store()
            .get(&ObjectKey::namespaced("kube-node-lease", name.clone()));
        let mut all = self.health.lock();
        let health = Health::observe(all.get(&name), node, lease.as_deref(), now);
        let left = health.left(self.context.config.node_grace, now);
        all.insert(name, health);
        left
    }

    fn evictions(&self) -> Evictions {
        let nodes = self.context.informers.nodes.store().list();
        if nodes.iter().any(|node| is_ready(node)) { Evictions::Allowed } else { Evictions::Suspended }
    }

    async fn declare_lost(
        &self,
        node: &Node,
        conditions: Vec<NodeCondition>,
    ) -> Result<Outcome, ControllerError> {
        let name = node.name_any();
        if ready(node).is_none_or(|ready| ready.status == "True") {
            tracing::warn!(node = name, "no lease renewal within the grace period: node is not ready");
            let about = node_reference(node);
            let message = format!("Node {name} status is now: NodeNotReady");
            self.context.recorder.publish_about(about, EventType::Normal, "NodeNotReady", message);
        }
        let patch = json!({"status": {"conditions": conditions}});
        let api = self.context.cluster::<Node>();
        unless_gone(api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await)?;
        Ok(Outcome::After(Duration::from_millis(200)))
    }

    async fn write_taints(&self, node: &Node, taints: Value) -> Result<(), ControllerError> {
        let patch = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": taints},
        });
        let api = self.context.cluster::<Node>();
        unless_gone(api.patch(&node.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await)?;
        Ok(())
    }

    /// Nobody answers for the pod: it is taken out of its Services.
    async fn mark_unready(&self, pod: &Pod) -> Result<(), ControllerError> {
        let condition = json!({
            "type": "Ready",
            "status": "False",
            "reason": "NodeNotReady",
            "lastTransitionTime": Timestamp::now().to_string(),
        });
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}});
        let recorder = &self.context.recorder;
        recorder.publish(pod, EventType::Warning, "NodeNotReady", "Node is not ready");
        self.patch_status(pod, patch).await
    }

    /// Removes the pods that do not bear the node's taints. Returns when the next one leaves.
    async fn evict(
        &self,
        node: &Node,
        pods: &[Arc<Pod>],
        now: Timestamp,
    ) -> Result<Option<Duration>, ControllerError> {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let mut leaving = Vec::new();
        let mut next: Option<Timestamp> = None;
        for pod in pods.iter().filter(|pod| !pods::is_terminating(pod) && !pods::is_finished(pod)) {
            match fate(pod, taints, now) {
                Fate::Stays => {}
                Fate::LeavesAt(at) => next = Some(next.map_or(at, |next| next.min(at))),
                Fate::Leaves => leaving.push(self.remove(pod)),
            }
        }
        all_steps(join_all(leaving).await)?;
        Ok(next.and_then(|at| Duration::try_from(at.duration_since(now)).ok()))
    }

    async fn remove(&self, pod: &Pod) -> Result<(), ControllerError> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let message = format!("Marking for deletion Pod {namespace}/{name}");
        self.context.recorder.publish(pod, EventType::Normal, "TaintManagerEviction", message);
        let condition = json!({
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "The pod does not tolerate a NoExecute taint of its node",
            "lastTransitionTime": Timestamp::now().to_string(),
        });
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}});
        self.patch_status(pod, patch).await?;
        let same = Preconditions { uid: pod.uid(), resource_version: None };
        let api = self.context.namespaced::<Pod>(&namespace);
        unless_gone(api.delete(&name, &DeleteParams::default().preconditions(same)).await)?;
        Ok(())
    }

    async fn patch_status(&self, pod: &Pod, patch: Value) -> Result<(), ControllerError> {
        let api = self.context.namespaced::<Pod>(&pod.namespace().unwrap_or_default());
        unless_gone(
            api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await,
        )?;
        Ok(())
    }
}

/// Events about nodes carry the name as uid, as kubelets write them: that is what `kubectl describe node` looks for.
fn node_reference(node: &Node) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Node".into()),
        name: Some(node.name_any()),
        uid: Some(node.name_any()),
        ..ObjectReference::default()
    }
}
