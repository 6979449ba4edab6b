//! The shell of the ReplicaSet controller.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Resource, ResourceExt};
use skep_api::LabelSelector;
use skep_informer::{Change, ObjectKey, Outcome, WorkQueue, work};

use super::plan::{Failure, Scaling, scaling, status};
use crate::claim;
use crate::context::{BY_CONTROLLER, Context, orphan_value};
use crate::error::{ControllerError, unless_gone};
use crate::expectations::Expectations;
use crate::owner::{controller_of, controller_reference};
use crate::pod_control::{PodControl, pod_from_template};
use crate::pod_owner::PodOwnerHandler;

/// Keeps each ReplicaSet's pods.
pub(crate) struct ReplicaSetController {
    context: Arc<Context>,
    queue: Arc<WorkQueue<ObjectKey>>,
    expectations: Arc<Expectations>,
}

impl ReplicaSetController {
    /// Registers for sets and pods.
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let expectations: Arc<Expectations> = Arc::default();
        let informers = &context.informers;
        let (sink, forget) = (queue.clone(), expectations.clone());
        informers.replica_sets.on_change(move |change| {
            let key = ObjectKey::of(&**change.latest());
            if matches!(change, Change::Deleted(_)) {
                forget.forget(&key);
            }
            sink.add(key);
        });
        let sets = informers.replica_sets.store().clone();
        let adopters = move |pod: &Pod| {
            let candidates = sets.list_in(&pod.namespace().unwrap_or_default());
            let fits = |set: &&Arc<ReplicaSet>| {
                selector(set).is_ok_and(|selector| !selector.is_empty() && selector.matches(pod.labels()))
            };
            candidates.iter().filter(fits).map(|set| ObjectKey::of(&**set)).collect()
        };
        PodOwnerHandler {
            kind: "ReplicaSet",
            queue: queue.clone(),
            expectations: expectations.clone(),
            adopters: Box::new(adopters),
        }
        .attach(&informers.pods);
        Self { context: context.clone(), queue, expectations }
    }

    /// Works until dropped.
    pub(crate) async fn run(self) {
        work("replicasets", &self.queue, 5, |key| self.reconcile(key)).await;
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ControllerError> {
        let Some(set) = self.context.informers.replica_sets.store().get(&key) else {
            return Ok(Outcome::Done);
        };
        let selector = selector(&set)?;
        let settled = self.expectations.satisfied(&key, Instant::now());
        let owned = self.claim(&set, &selector).await?;
        let now = Timestamp::now();
        let applied = if settled {
            let scaling = scaling(&set, &owned, &self.related(&set, &owned), now);
            self.apply(&key, &set, scaling).await
        } else {
            Ok(())
        };
        let failure = applied
            .as_ref()
            .err()
            .map(|error| Failure { reason: failure_reason(&set, &owned), message: error.to_string() });
        let (status, again) = status(&set, &owned, failure, now);
        self.write_status(&set, status).await?;
        applied?;
        Ok(again.map_or(Outcome::Done, Outcome::After))
    }

    async fn claim(
        &self,
        set: &ReplicaSet,
        selector: &LabelSelector,
    ) -> Result<Vec<Arc<Pod>>, ControllerError> {
        let store = self.context.informers.pods.store();
        let namespace = set.namespace().unwrap_or_default();
        let uid = set.uid().unwrap_or_default();
        let mut candidates = store.by_index(BY_CONTROLLER, &uid);
        candidates.extend(store.by_index(BY_CONTROLLER, &orphan_value(&namespace)));
        let claims = claim::claim(&uid, set.meta().deletion_timestamp.is_some(), selector, candidates);
        claim::apply(&self.context.namespaced(&namespace), &controller_reference(set), claims).await
    }

    /// The pods of all sets that share this one's controller: they crowd the same application's nodes.
    fn related(&self, set: &ReplicaSet, owned: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let Some(owner) = controller_of(&set.metadata) else { return owned.to_vec() };
        let informers = &self.context.informers;
        let siblings = informers.replica_sets.store().by_index(BY_CONTROLLER, &owner.uid);
        let uids = siblings.iter().filter_map(|sibling| sibling.uid());
        uids.flat_map(|uid| informers.pods.store().by_index(BY_CONTROLLER, &uid)).collect()
    }

    async fn apply(
        &self,
        key: &ObjectKey,
        set: &ReplicaSet,
        scaling: Scaling,
    ) -> Result<(), ControllerError> {
        let control = PodControl { context: &self.context, owner: set, expectations: &self.expectations };
        if scaling.create > 0 {
            self.expectations.set(key, scaling.create, [], Instant::now());
            let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
            let pod = pod_from_template(&template, &key.name, controller_reference(set));
            control.create(vec![pod; scaling.create]).await?;
        }
        if !scaling.delete.is_empty() {
            let uids = scaling.delete.iter().map(|pod| pod.uid.clone());
            self.expectations.set(key, 0, uids, Instant::now());
            control.delete(&scaling.delete).await?;
        }
        Ok(())
    }

    async fn write_status(&self, set: &ReplicaSet, status: ReplicaSetStatus) -> Result<(), ControllerError> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api = self.context.namespaced::<ReplicaSet>(&set.namespace().unwrap_or_default());
        let updated = ReplicaSet { status: Some(status), ..set.clone() };
        unless_gone(api.replace_status(&set.name_any(), &PostParams::default(), &updated).await)?;
        Ok(())
    }
}

fn selector(set: &ReplicaSet) -> Result<LabelSelector, ControllerError> {
    let selector = set.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
    LabelSelector::from_object(&selector)
        .map_err(|error| ControllerError::Selector { object: set.name_any(), reason: error.to_string() })
}

fn failure_reason(set: &ReplicaSet, owned: &[Arc<Pod>]) -> &'static str {
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let have = owned.iter().filter(|pod| crate::pods::is_active(pod)).count();
    if usize::try_from(wanted).is_ok_and(|wanted| have < wanted) { "FailedCreate" } else { "FailedDelete" }
}
