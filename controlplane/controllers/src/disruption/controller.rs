//! The shell of the disruption controller.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::PostParams;
use skep_api::LabelSelector;
use skep_informer::{ObjectKey, Outcome, WorkQueue, work};

use super::plan::status;
use crate::context::Context;
use crate::error::{ControllerError, unless_gone};
use crate::owner::controller_of;

/// Keeps the status of budgets.
pub(crate) struct DisruptionController {
    context: Arc<Context>,
    queue: Arc<WorkQueue<ObjectKey>>,
}

impl DisruptionController {
    /// Registers for budgets, pods, and what scales them.
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let informers = &context.informers;
        let sink = queue.clone();
        informers.budgets.on_change(move |change| sink.add(ObjectKey::of(&**change.latest())));
        let (sink, budgets) = (queue.clone(), informers.budgets.store().clone());
        informers.pods.on_change(move |change| {
            for pod in change.states() {
                for budget in budgets.list_in(&pod.namespace().unwrap_or_default()) {
                    if selector(&budget)
                        .is_ok_and(|selector| selector.is_some_and(|s| s.matches(pod.labels())))
                    {
                        sink.add(ObjectKey::of(&*budget));
                    }
                }
            }
        });
        let (sink, budgets) = (queue.clone(), informers.budgets.store().clone());
        let all_in = move |namespace: Option<String>| {
            for budget in budgets.list_in(&namespace.unwrap_or_default()) {
                sink.add(ObjectKey::of(&*budget));
            }
        };
        let again = all_in.clone();
        informers.replica_sets.on_change(move |change| again(change.latest().namespace()));
        let again = all_in.clone();
        informers.stateful_sets.on_change(move |change| again(change.latest().namespace()));
        informers.deployments.on_change(move |change| all_in(change.latest().namespace()));
        Self { context: context.clone(), queue }
    }

    /// Works until dropped.
    pub(crate) async fn run(self) {
        work("disruption", &self.queue, 2, |key| self.reconcile(key)).await;
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ControllerError> {
        let informers = &self.context.informers;
        let Some(budget) = informers.budgets.store().get(&key) else { return Ok(Outcome::Done) };
        let selector = selector(&budget)?;
        let selects =
            |pod: &Arc<Pod>| selector.as_ref().is_some_and(|selector| selector.matches(pod.labels()));
        let pods: Vec<Arc<Pod>> =
            informers.pods.store().list_in(&key.namespace).into_iter().filter(selects).collect();
        let (status, again) = status(&budget, &pods, self.scale(&pods), Timestamp::now());
        if budget.status.as_ref() != Some(&status) {
            let api = self.context.namespaced::<PodDisruptionBudget>(&key.namespace);
            let updated = PodDisruptionBudget { status: Some(status), ..(*budget).clone() };
            unless_gone(api.replace_status(&key.name, &PostParams::default(), &updated).await)?;
        }
        Ok(again.map_or(Outcome::Done, Outcome::After))
    }

    /// Replicas that the controllers of `pods` ask for, each controller once.
    fn scale(&self, pods: &[Arc<Pod>]) -> i32 {
        let mut scales: HashMap<String, i32> = HashMap::new();
        for pod in pods {
            if let Some((uid, replicas)) = self.scale_of(pod) {
                scales.insert(uid, replicas);
            }
        }
        scales.values().sum()
    }

    fn scale_of(&self, pod: &Pod) -> Option<(String, i32)> {
        let informers = &self.context.informers;
        let owner = controller_of(&pod.metadata)?;
        let key = ObjectKey::namespaced(pod.namespace()?, owner.name.clone());
        match owner.kind.as_str() {
            "ReplicaSet" => {
                let set = informers.replica_sets.store().get(&key)?;
                let parent = controller_of(&set.metadata).filter(|parent| parent.kind == "Deployment");
                let Some(parent) = parent else {
                    return Some((owner.uid.clone(), set.spec.as_ref()?.replicas.unwrap_or(1)));
                };
                let key = ObjectKey::namespaced(pod.namespace()?, parent.name.clone());
                let deployment = informers.deployments.store().get(&key)?;
                Some((parent.uid.clone(), deployment.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            "StatefulSet" => {
                let set = informers.stateful_sets.store().get(&key)?;
                Some((owner.uid.clone(), set.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            _ => None,
        }
    }
}

/// The budget's selector; a budget without one selects nothing.
fn selector(budget: &PodDisruptionBudget) -> Result<Option<LabelSelector>, ControllerError> {
    let raw = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    raw.map(LabelSelector::from_object)
        .transpose()
        .map_err(|error| ControllerError::Selector { object: budget.name_any(), reason: error.to_string() })
}
