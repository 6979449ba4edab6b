//! Turns pod changes into work for the controller that owns them.
//!
//! Shared by everything that makes pods: creations and deletions meet expectations, a change enqueues its owner, an
//! orphan enqueues whoever may adopt it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, ResourceExt};
use skep_informer::{Change, Informer, ObjectKey, WorkQueue};

use crate::expectations::Expectations;
use crate::owner::controller_of;

/// Finds the owners that may adopt an orphan.
pub(crate) type Adopters = Box<dyn Fn(&Pod) -> Vec<ObjectKey> + Send + Sync>;

/// Where the changes of one kind's pods go.
pub(crate) struct PodOwnerHandler {
    /// Kind of the owners, such as `ReplicaSet`.
    pub(crate) kind: &'static str,
    /// Their queue.
    pub(crate) queue: Arc<WorkQueue<ObjectKey>>,
    /// Their expectations.
    pub(crate) expectations: Arc<Expectations>,
    /// Owners that may adopt an orphan.
    pub(crate) adopters: Adopters,
}

impl PodOwnerHandler {
    /// Attaches the handler to the pod informer.
    pub(crate) fn attach(self, pods: &Informer<Pod>) {
        pods.on_change(move |change| self.handle(&change));
    }

    fn handle(&self, change: &Change<'_, Pod>) {
        match change {
            Change::Added(pod) => {
                if let Some(owner) = self.owner(pod) {
                    self.expectations.created(&owner, 1);
                    self.observe_deletion(pod, &owner);
                    self.queue.add(owner);
                } else {
                    self.enqueue_adopters(pod);
                }
            }
            Change::Updated { old, new } => {
                let (before, after) = (self.owner(old), self.owner(new));
                if let Some(before) = before
                    && Some(&before) != after.as_ref()
                {
                    self.queue.add(before);
                }
                if let Some(owner) = after {
                    self.observe_deletion(new, &owner);
                    self.queue.add(owner);
                } else if old.labels() != new.labels() || controller_of(&old.metadata).is_some() {
                    self.enqueue_adopters(new);
                }
            }
            Change::Deleted(pod) => {
                if let Some(owner) = self.owner(pod) {
                    self.expectations.deleted(&owner, &pod.uid().unwrap_or_default());
                    self.queue.add(owner);
                }
            }
        }
    }

    fn observe_deletion(&self, pod: &Pod, owner: &ObjectKey) {
        if pod.meta().deletion_timestamp.is_some() {
            self.expectations.deleted(owner, &pod.uid().unwrap_or_default());
        }
    }

    fn owner(&self, pod: &Pod) -> Option<ObjectKey> {
        let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == self.kind)?;
        Some(ObjectKey::namespaced(pod.namespace().unwrap_or_default(), owner.name.clone()))
    }

    fn enqueue_adopters(&self, pod: &Pod) {
        if controller_of(&pod.metadata).is_none() {
            for key in (self.adopters)(pod) {
                self.queue.add(key);
            }
        }
    }
}
