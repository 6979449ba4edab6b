//! What a ReplicaSet needs: pods to create or delete, and its status.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::rank::by_deletion_order;
use crate::pod_control::PodRef;
use crate::pods;

/// Pods created or deleted in one go.
pub(crate) const BURST: usize = 500;

/// Changes to the pods of a ReplicaSet.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scaling {
    /// Pods to create.
    pub(crate) create: usize,
    /// Pods to delete.
    pub(crate) delete: Vec<PodRef>,
}

/// The changes that `set` needs, given the pods it owns (any state) and those related to it.
pub(crate) fn scaling(set: &ReplicaSet, owned: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Scaling {
    if set.metadata.deletion_timestamp.is_some() {
        return Scaling::default();
    }
    let mut active: Vec<Arc<Pod>> = owned.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
    let wanted = wanted(set);
    if active.len() < wanted {
        return Scaling { create: (wanted - active.len()).min(BURST), delete: Vec::new() };
    }
    let surplus = (active.len() - wanted).min(BURST);
    if surplus > 0 && wanted > 0 {
        by_deletion_order(&mut active, related, now);
    }
    Scaling { create: 0, delete: active.iter().take(surplus).map(|pod| PodRef::of(pod)).collect() }
}

/// Why pods could not be made or removed.
pub(crate) struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub(crate) reason: &'static str,
    /// For people.
    pub(crate) message: String,
}

/// The status of `set`, and when to look again because a ready pod will become available.
pub(crate) fn status(
    set: &ReplicaSet,
    owned: &[Arc<Pod>],
    failure: Option<Failure>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let template_labels = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.as_ref())
        .and_then(|template| template.metadata.as_ref())
        .and_then(|meta| meta.labels.as_ref());
    let active: Vec<&Arc<Pod>> = owned.iter().filter(|pod| pods::is_active(pod)).collect();
    let labelled = |pod: &&&Arc<Pod>| {
        template_labels
            .is_none_or(|labels| labels.iter().all(|(key, value)| pod.labels().get(key) == Some(value)))
    };
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let ready: Vec<&&Arc<Pod>> = active.iter().filter(|pod| pods::is_ready(pod)).collect();
    let available = ready.iter().filter(|pod| pods::is_available(pod, min_ready, now)).count();
    let again = ready
        .iter()
        .filter_map(|pod| pods::available_in(pod, min_ready, now))
        .filter(|left| left.is_positive())
        .min();
    let old = set.status.clone().unwrap_or_default();
    let terminating = owned.iter().filter(|pod| pods::is_terminating(pod) && !pods::is_finished(pod)).count();
    let status = ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: Some(count(active.iter().filter(labelled).count())),
        ready_replicas: Some(count(ready.len())),
        available_replicas: Some(count(available)),
        terminating_replicas: Some(count(terminating)),
        observed_generation: set.metadata.generation,
        conditions: conditions(old.conditions, failure, now),
    };
    (status, again.and_then(|left| Duration::try_from(left).ok()))
}

fn conditions(
    old: Option<Vec<ReplicaSetCondition>>,
    failure: Option<Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = old.unwrap_or_default();
    let position = conditions.iter().position(|condition| condition.type_ == "ReplicaFailure");
    match (failure, position) {
        (None, Some(position)) => drop(conditions.remove(position)),
        (Some(failure), None) => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(failure.reason.into()),
            message: Some(failure.message),
            last_transition_time: Some(Time(now)),
        }),
        _ => {}
    }
    (!conditions.is_empty()).then_some(conditions)
}

/// Replicas asked for.
fn wanted(set: &ReplicaSet) -> usize {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    usize::try_from(replicas).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::ReplicaSetSpec;
    use k8s_openapi::api::core::v1::{PodCondition, PodSpec, PodStatus};

    use super::*;

    fn set(replicas: i32) -> ReplicaSet {
        let spec = ReplicaSetSpec { replicas: Some(replicas), ..ReplicaSetSpec::default() };
        ReplicaSet { spec: Some(spec), ..ReplicaSet::default() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn pod(name: &str, node: Option<&str>, phase: &str, ready: Option<i64>) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.into());
        pod.metadata.uid = Some(name.into());
        pod.metadata.creation_timestamp = Some(Time(at(0)));
        pod.spec = Some(PodSpec { node_name: node.map(Into::into), ..PodSpec::default() });
        let ready = ready.map(|second| {
            vec![PodCondition {
                type_: "Ready".into(),
                status: "True".into(),
                last_transition_time: Some(Time(at(second))),
                ..PodCondition::default()
            }]
        });
        pod.status = Some(PodStatus { phase: Some(phase.into()), conditions: ready, ..PodStatus::default() });
        Arc::new(pod)
    }

    fn deleted(scaling: &Scaling) -> Vec<&str> {
        scaling.delete.iter().map(|pod| pod.name.as_str()).collect()
    }

    #[test]
    fn creates_what_is_missing_not_counting_finished_pods() {
        let pods = [pod("a", Some("n"), "Running", None), pod("b", Some("n"), "Failed", None)];
        assert_eq!(scaling(&set(3), &pods, &pods, at(9)).create, 2);
    }

    #[test]
    fn deletes_unassigned_then_not_ready_then_crowded() {
        let pods = [
            pod("ready-alone", Some("n1"), "Running", Some(1)),
            pod("ready-crowded", Some("n2"), "Running", Some(1)),
            pod("not-ready", Some("n2"), "Running", None),
            pod("unassigned", None, "Pending", None),
        ];
        let order = |keep| scaling(&set(keep), &pods, &pods, at(99));
        assert_eq!(deleted(&order(3)), ["unassigned"]);
        assert_eq!(deleted(&order(2)), ["unassigned", "not-ready"]);
        assert_eq!(deleted(&order(1)), ["unassigned", "not-ready", "ready-crowded"]);
    }

    #[test]
    fn newly_ready_pods_go_before_long_ready_ones() {
        let pods = [pod("old", Some("n1"), "Running", Some(1)), pod("new", Some("n2"), "Running", Some(95))];
        assert_eq!(deleted(&scaling(&set(1), &pods, &pods, at(99))), ["new"]);
    }

    #[test]
    fn status_waits_for_min_ready_seconds() {
        let mut set = set(2);
        if let Some(spec) = set.spec.as_mut() {
            spec.min_ready_seconds = Some(10);
        }
        let pods = [pod("a", Some("n"), "Running", Some(0)), pod("b", Some("n"), "Running", Some(95))];
        let (status, again) = status(&set, &pods, None, at(99));
        assert_eq!(
            (status.replicas, status.ready_replicas, status.available_replicas),
            (2, Some(2), Some(1))
        );
        assert_eq!(again, Some(Duration::from_secs(6)));
    }

    proptest::proptest! {
        #[test]
        fn converges_in_one_step_and_then_rests(wanted in 0i32..8, have in 0usize..8) {
            let pods: Vec<Arc<Pod>> = (0..have).map(|n| pod(&n.to_string(), Some("n"), "Running", Some(1))).collect();
            let step = scaling(&set(wanted), &pods, &pods, at(50));
            let after = have + step.create - step.delete.len();
            proptest::prop_assert_eq!(after, usize::try_from(wanted).unwrap());
            let rest: Vec<Arc<Pod>> = (0..after).map(|n| pod(&n.to_string(), Some("n"), "Running", Some(1))).collect();
            proptest::prop_assert_eq!(scaling(&set(wanted), &rest, &rest, at(50)), Scaling::default());
        }
    }
}
