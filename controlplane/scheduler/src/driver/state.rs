//! Cache, queue and algorithm together: what a change of the cluster means to them, and what to do next. No I/O.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::ResourceExt;
use skep_informer::Change;

use crate::algorithm::Algorithm;
use crate::cache::Cache;
use crate::diagnosis::FitError;
use crate::pod_info::PodInfo;
use crate::preemption::Room;
use crate::queue::{ClusterEvent, SchedulingQueue};

/// What the driver does next.
pub(super) enum Next {
    /// Bind the pod to the node; it is assumed there already.
    Bind { pod: Arc<PodInfo>, node: String },
    /// Tell why the pod fits nowhere, and make room for it if that is possible.
    Report { pod: Arc<PodInfo>, error: FitError, room: Option<Room> },
    /// Nothing until this time or the next change.
    Wait(Option<Instant>),
}

/// Everything the scheduler knows.
pub(super) struct State {
    name: String,
    cache: Cache,
    queue: SchedulingQueue,
    algorithm: Algorithm,
    /// Nodes on which room is being made, by the uid of the pod it is for.
    nominated: HashMap<String, String>,
}

impl State {
    /// An empty state for the scheduler called `name`.
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            cache: Cache::default(),
            queue: SchedulingQueue::default(),
            algorithm: Algorithm::default(),
            nominated: HashMap::new(),
        }
    }

    /// Decides about the next pod.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        let Some(pod) = self.queue.pop(now) else { return Next::Wait(self.queue.next_due()) };
        match self.algorithm.decide(&self.cache, &pod, &mut rand::rng()) {
            Ok(node) => {
                self.cache.assume(pod.clone(), &node);
                Next::Bind { pod, node }
            }
            Err(error) => {
                self.queue.unschedulable(&pod.uid, error.rules, now);
                let room = self.make_room(&pod);
                Next::Report { pod, error, room }
            }
        }
    }

    /// Room for a pod that fits nowhere, unless pods are leaving for it already.
    fn make_room(&mut self, pod: &PodInfo) -> Option<Room> {
        let leaving = |name: &String| {
            let pods = self.cache.node(name).into_iter().flat_map(|node| &node.pods);
            pods.into_iter()
                .any(|other| other.priority < pod.priority && other.pod.metadata.deletion_timestamp.is_some())
        };
        if self.nominated.get(&pod.uid).is_some_and(leaving) {
            return None;
        }
        let room = self.algorithm.make_room(&self.cache, pod)?;
        self.nominated.insert(pod.uid.clone(), room.node.clone());
        Some(room)
    }

    /// The pod was bound; the watch confirms it later.
    pub(super) fn bound(&mut self, pod: &PodInfo) {
        self.nominated.remove(&pod.uid);
        self.queue.placed(&pod.uid);
    }

    /// The pod could not be bound; `settled` when trying again is pointless.
    pub(super) fn not_bound(&mut self, pod: Arc<PodInfo>, settled: bool, now: Instant) {
        self.cache.forget(&pod.uid);
        if settled {
            self.queue.remove(&pod.uid);
        } else {
            self.queue.failed(pod, now);
        }
        self.queue.event(ClusterEvent::PodRemoved, now);
    }

    /// A pod was seen.
    pub(super) fn pod_changed(&mut self, change: &Change<'_, Pod>, now: Instant) {
        let pod = change.latest();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if let Change::Updated { old, new } = change {
            if old.metadata.uid != new.metadata.uid {
                self.gone(old.metadata.uid.as_deref().unwrap_or_default(), now);
            } else if is_same(old, new) {
                return;
            }
        }
        if matches!(change, Change::Deleted(_)) || is_finished(pod) {
            self.gone(uid, now);
        } else if is_assigned(pod) {
            self.queue.remove(uid);
            self.cache.confirm(Arc::new(PodInfo::new(pod.clone())));
            self.queue.event(ClusterEvent::PodPlaced, now);
        } else if !self.is_ours(pod) {
            self.queue.remove(uid);
        } else if !self.cache.is_placed(uid) {
            self.queue.upsert(Arc::new(PodInfo::new(pod.clone())), now);
        }
    }

    fn gone(&mut self, uid: &str, now: Instant) {
        self.nominated.remove(uid);
        self.queue.remove(uid);
        if self.cache.remove_pod(uid) {
            self.queue.event(ClusterEvent::PodRemoved, now);
        }
    }

    /// Whether an unassigned pod is for this scheduler, now.
    fn is_ours(&self, pod: &Pod) -> bool {
        let spec = pod.spec.as_ref();
        let name = spec.and_then(|spec| spec.scheduler_name.as_deref()).unwrap_or("default-scheduler");
        let gated =
            spec.and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty());
        name == self.name && !gated && pod.metadata.deletion_timestamp.is_none()
    }

    /// A node was seen.
    pub(super) fn node_changed(&mut self, change: &Change<'_, Node>, now: Instant) {
        match change {
            Change::Added(node) => {
                self.cache.set_node((*node).clone());
                self.queue.event(ClusterEvent::NodeAdded, now);
            }
            Change::Updated { old, new } => {
                self.cache.set_node((*new).clone());
                for event in node_events(old, new) {
                    self.queue.event(event, now);
                }
            }
            Change::Deleted(node) => {
                self.cache.remove_node(&node.name_any());
                self.queue.event(ClusterEvent::NodeRemoved, now);
            }
        }
    }

    /// A namespace was seen.
    pub(super) fn namespace_changed(&mut self, change: &Change<'_, Namespace>) {
        let namespace = change.latest();
        let labels = (!matches!(change, Change::Deleted(_))).then(|| namespace.labels().clone());
        self.cache.set_namespace(&namespace.name_any(), labels);
    }
}

fn is_assigned(pod: &Pod) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    node.is_some_and(|node| !node.is_empty())
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether nothing changed that scheduling looks at.
fn is_same(old: &Pod, new: &Pod) -> bool {
    old.spec == new.spec
        && old.metadata.labels == new.metadata.labels
        && old.metadata.deletion_timestamp.is_some() == new.metadata.deletion_timestamp.is_some()
        && is_finished(old) == is_finished(new)
}

fn node_events(old: &Node, new: &Node) -> Vec<ClusterEvent> {
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    let taints = |node: &Node| node.spec.as_ref().map(|spec| (spec.taints.clone(), spec.unschedulable));
    let mut events = Vec::new();
    if old.labels() != new.labels() {
        events.push(ClusterEvent::NodeLabels);
    }
    if taints(old) != taints(new) {
        events.push(ClusterEvent::NodeTaints);
    }
    if allocatable(old) != allocatable(new) {
        events.push(ClusterEvent::NodeResources);
    }
    events
}
