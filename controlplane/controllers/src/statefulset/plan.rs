//! The next pod to make or remove, and the status.
//!
//! In order: pods come up from the lowest number, each when all before it are available; they go down from the highest;
//! an update replaces them from the highest down to the partition. `Parallel` makes and removes without waiting.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;

use super::identity::ordinal;
use crate::pod_control::PodRef;
use crate::pods;
use crate::revisions::HASH_LABEL;

/// What was found.
pub(crate) struct Observed<'a> {
    /// The set.
    pub(crate) set: &'a StatefulSet,
    /// Its pods.
    pub(crate) pods: &'a [Arc<Pod>],
    /// Name of the revision that pods are brought to.
    pub(crate) update: &'a str,
    /// Name of the revision they come from.
    pub(crate) current: &'a str,
}

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Numbers of the pods to make, with the revision each gets.
    pub(crate) create: Vec<(i32, String)>,
    /// Pods to delete.
    pub(crate) delete: Vec<PodRef>,
}

struct Shape {
    first: i32,
    count: i32,
    min_ready: i32,
    parallel: bool,
    partition: Option<i32>,
}

impl Shape {
    fn of(set: &StatefulSet) -> Self {
        let spec = set.spec.clone().unwrap_or_default();
        let strategy = spec.update_strategy.unwrap_or_default();
        let rolling = strategy.type_.as_deref() != Some("OnDelete");
        let partition = strategy.rolling_update.and_then(|rolling| rolling.partition).unwrap_or(0);
        Self {
            first: spec.ordinals.and_then(|ordinals| ordinals.start).unwrap_or(0),
            count: spec.replicas.unwrap_or(1),
            min_ready: spec.min_ready_seconds.unwrap_or(0),
            parallel: spec.pod_management_policy.as_deref() == Some("Parallel"),
            partition: rolling.then_some(partition),
        }
    }

    fn wanted(&self) -> std::ops::Range<i32> {
        self.first..self.first + self.count
    }

    /// The revision that a pod made now gets.
    fn revision<'a>(&self, number: i32, observed: &Observed<'a>) -> &'a str {
        match self.partition {
            Some(partition) if number < partition => observed.current,
            _ => observed.update,
        }
    }
}

/// Plans the next step.
pub(crate) fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if observed.set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let shape = Shape::of(observed.set);
    let by_number = by_number(observed);
    let healthy =
        |pod: &Arc<Pod>| !pods::is_terminating(pod) && pods::is_available(pod, shape.min_ready, now);
    for number in shape.wanted() {
        let settled = match by_number.get(&number) {
            None => {
                plan.create.push((number, shape.revision(number, observed).to_owned()));
                false
            }
            Some(pod) if pods::is_finished(pod) && !pods::is_terminating(pod) => {
                plan.delete.push(PodRef::of(pod));
                false
            }
            Some(pod) => healthy(pod),
        };
        if !settled && !shape.parallel {
            return plan;
        }
    }
    for (_, pod) in by_number.iter().rev().filter(|(number, _)| !shape.wanted().contains(number)) {
        if !pods::is_terminating(pod) {
            plan.delete.push(PodRef::of(pod));
        }
        if !shape.parallel {
            return plan;
        }
    }
    if plan == Plan::default() {
        plan.delete.extend(outdated(&shape, observed, &by_number, healthy));
    }
    plan
}

/// The highest pod of an old revision, if all above it are up to date and healthy.
fn outdated(
    shape: &Shape,
    observed: &Observed<'_>,
    by_number: &BTreeMap<i32, Arc<Pod>>,
    healthy: impl Fn(&Arc<Pod>) -> bool,
) -> Option<PodRef> {
    let partition = shape.partition?;
    for (_, pod) in by_number.range(partition.max(shape.first)..).rev() {
        if pods::is_terminating(pod) {
            return None;
        }
        if pods::label(pod, HASH_LABEL) != Some(observed.update) {
            return Some(PodRef::of(pod));
        }
        if !healthy(pod) {
            return None;
        }
    }
    None
}

fn by_number(observed: &Observed<'_>) -> BTreeMap<i32, Arc<Pod>> {
    observed.pods.iter().filter_map(|pod| Some((ordinal(observed.set, pod)?, pod.clone()))).collect()
}

/// The status of the set.
pub(crate) fn status(observed: &Observed<'_>, now: Timestamp) -> StatefulSetStatus {
    let shape = Shape::of(observed.set);
    let by_number = by_number(observed);
    let count = |holds: &dyn Fn(&Arc<Pod>) -> bool| {
        i32::try_from(by_number.values().filter(|pod| holds(pod)).count()).unwrap_or(i32::MAX)
    };
    let is_of = |pod: &Arc<Pod>, revision: &str| pods::label(pod, HASH_LABEL) == Some(revision);
    let live = |pod: &Arc<Pod>| !pods::is_terminating(pod);
    let old = observed.set.status.clone().unwrap_or_default();
    let replicas = count(&|_| true);
    let updated = count(&|pod| live(pod) && is_of(pod, observed.update));
    let available = count(&|pod| live(pod) && pods::is_available(pod, shape.min_ready, now));
    let over = updated == shape.count && replicas == shape.count && available == shape.count;
    let current = if over { observed.update } else { observed.current };
    StatefulSetStatus {
        replicas,
        ready_replicas: Some(count(&|pod| live(pod) && pods::is_ready(pod))),
        available_replicas: Some(available),
        current_replicas: Some(count(&|pod| live(pod) && is_of(pod, current))),
        updated_replicas: Some(updated),
        current_revision: Some(current.to_owned()),
        update_revision: Some(observed.update.to_owned()),
        observed_generation: observed.set.metadata.generation,
        collision_count: Some(old.collision_count.unwrap_or(0)),
        conditions: old.conditions,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodTemplateSpec;
    use serde_json::json;

    use super::super::identity::make_pod;
    use super::*;

    fn set(replicas: i32, policy: &str, partition: i32) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "db", "namespace": "ns", "uid": "u"},
            "spec": {
                "serviceName": "db", "replicas": replicas, "podManagementPolicy": policy,
                "selector": {"matchLabels": {"app": "db"}},
                "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": []}},
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}},
            },
        }))
        .unwrap()
    }

    fn pod(set: &StatefulSet, number: i32, revision: &str, ready: bool) -> Arc<Pod> {
        let mut pod = make_pod(set, &PodTemplateSpec::default(), revision, number);
        let status = if ready { "True" } else { "False" };
        let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": status}]});
        pod.status = Some(serde_json::from_value(status).unwrap());
        Arc::new(pod)
    }

    fn go(set: &StatefulSet, pods: &[Arc<Pod>]) -> (Vec<i32>, Vec<String>) {
        let observed = Observed { set, pods, update: "new", current: "old" };
        let plan = plan(&observed, Timestamp::now());
        let created = plan.create.into_iter().map(|(number, _)| number).collect();
        (created, plan.delete.into_iter().map(|pod| pod.name).collect())
    }

    fn none() -> (Vec<i32>, Vec<String>) {
        (vec![], vec![])
    }

    #[test]
    fn pods_come_one_after_another() {
        let set = set(3, "OrderedReady", 0);
        assert_eq!(go(&set, &[]), (vec![0], vec![]));
        assert_eq!(go(&set, &[pod(&set, 0, "new", false)]), none());
        assert_eq!(go(&set, &[pod(&set, 0, "new", true)]), (vec![1], vec![]));
    }

    #[test]
    fn parallel_pods_do_not_wait() {
        let set = set(3, "Parallel", 0);
        assert_eq!(go(&set, &[]), (vec![0, 1, 2], vec![]));
    }

    #[test]
    fn highest_number_goes_first() {
        let set = set(1, "OrderedReady", 0);
        let pods: Vec<_> = (0..3).map(|number| pod(&set, number, "new", true)).collect();
        assert_eq!(go(&set, &pods), (vec![], vec!["db-2".into()]));
    }

    #[test]
    fn update_goes_down_to_the_partition() {
        let set = set(3, "OrderedReady", 1);
        let mut pods: Vec<_> = (0..3).map(|number| pod(&set, number, "old", true)).collect();
        assert_eq!(go(&set, &pods), (vec![], vec!["db-2".into()]));
        pods[2] = pod(&set, 2, "new", false);
        assert_eq!(go(&set, &pods), none());
        pods[2] = pod(&set, 2, "new", true);
        assert_eq!(go(&set, &pods), (vec![], vec!["db-1".into()]));
        pods[1] = pod(&set, 1, "new", true);
        assert_eq!(go(&set, &pods), none());
    }

    #[test]
    fn identity_follows_from_the_number() {
        let pod = make_pod(&set(1, "OrderedReady", 0), &PodTemplateSpec::default(), "new", 4);
        let spec = pod.spec.unwrap();
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-4"), Some("db")));
        assert_eq!(pod.metadata.labels.unwrap()["statefulset.kubernetes.io/pod-name"], "db-4");
    }
}
