//! The status of a budget.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use skep_api::int_or_string::{Rounding, scaled};

use crate::pods;

/// How long an admitted eviction may take to show before it no longer counts.
const EVICTION_SHOWS: SignedDuration = SignedDuration::from_mins(2);

/// The status of `budget` over the pods it selects; `scale` is what their controllers ask for together. Also when an
/// admitted eviction will stop counting.
pub(crate) fn status(
    budget: &PodDisruptionBudget,
    selected: &[Arc<Pod>],
    scale: i32,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Option<Duration>) {
    let old = budget.status.clone().unwrap_or_default();
    let mut evicted = old.disrupted_pods.clone().unwrap_or_default();
    evicted.retain(|name, since| {
        let pending = selected.iter().any(|pod| pod.name_any() == *name && !pods::is_terminating(pod));
        pending && now.duration_since(since.0) < EVICTION_SHOWS
    });
    let healthy = |pod: &&Arc<Pod>| {
        pods::is_ready(pod) && !pods::is_terminating(pod) && !evicted.contains_key(&pod.name_any())
    };
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let current = count(selected.iter().filter(healthy).count());
    let (expected, desired) = expectation(budget, count(selected.len()), scale);
    let allowed = if expected > 0 { (current - desired).max(0) } else { 0 };
    let again = evicted.values().map(|since| EVICTION_SHOWS - now.duration_since(since.0)).min();
    let status = PodDisruptionBudgetStatus {
        current_healthy: Some(current),
        desired_healthy: Some(desired),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: budget.metadata.generation,
        disrupted_pods: (!evicted.is_empty()).then_some(evicted),
        conditions: Some(vec![condition(&old, allowed, budget.metadata.generation, now)]),
    };
    (status, again.and_then(|left| Duration::try_from(left).ok()))
}

/// Pods there should be, and how many of them healthy.
fn expectation(budget: &PodDisruptionBudget, selected: i32, scale: i32) -> (i32, i32) {
    let spec = budget.spec.as_ref();
    let share = |value: &IntOrString| scaled(value, scale, Rounding::Up).unwrap_or(0);
    if let Some(unavailable) = spec.and_then(|spec| spec.max_unavailable.as_ref()) {
        return (scale, (scale - share(unavailable)).max(0));
    }
    match spec.and_then(|spec| spec.min_available.as_ref()) {
        Some(IntOrString::Int(number)) => (selected, *number),
        Some(value @ IntOrString::String(_)) => (scale, share(value)),
        None => (selected, 0),
    }
}

fn condition(
    old: &PodDisruptionBudgetStatus,
    allowed: i32,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let (status, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let before = old.conditions.iter().flatten().find(|condition| condition.type_ == "DisruptionAllowed");
    let since =
        before.filter(|before| before.status == status).map(|before| before.last_transition_time.clone());
    Condition {
        type_: "DisruptionAllowed".into(),
        status: status.into(),
        reason: reason.into(),
        message: String::new(),
        observed_generation: generation,
        last_transition_time: since.unwrap_or(Time(now)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn budget(spec: serde_json::Value) -> PodDisruptionBudget {
        serde_json::from_value(json!({"metadata": {"name": "b"}, "spec": spec})).unwrap()
    }

    fn pods(ready: usize, total: usize) -> Vec<Arc<Pod>> {
        let pod = |number: usize| {
            let status = if number < ready { "True" } else { "False" };
            json!({"metadata": {"name": format!("p{number}")},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}})
        };
        (0..total).map(|number| Arc::new(serde_json::from_value(pod(number)).unwrap())).collect()
    }

    fn allowed(spec: serde_json::Value, ready: usize, total: usize) -> [i32; 3] {
        let scale = i32::try_from(total).unwrap();
        let (status, _) = status(&budget(spec), &pods(ready, total), scale, Timestamp::UNIX_EPOCH);
        [status.desired_healthy, status.current_healthy, status.disruptions_allowed].map(Option::unwrap)
    }

    #[test]
    fn allows_what_the_budget_leaves() {
        assert_eq!(allowed(json!({"minAvailable": 1}), 1, 1), [1, 1, 0]);
        assert_eq!(allowed(json!({"minAvailable": 2}), 3, 3), [2, 3, 1]);
        assert_eq!(allowed(json!({"minAvailable": "50%"}), 4, 5), [3, 4, 1]);
        assert_eq!(allowed(json!({"maxUnavailable": 1}), 3, 3), [2, 3, 1]);
        assert_eq!(allowed(json!({"maxUnavailable": 1}), 2, 3), [2, 2, 0]);
        assert_eq!(allowed(json!({"maxUnavailable": 1}), 0, 0), [0, 0, 0]);
    }

    #[test]
    fn admitted_eviction_counts_until_it_shows() {
        let mut budget = budget(json!({"minAvailable": 1}));
        budget.status = Some(PodDisruptionBudgetStatus {
            disrupted_pods: Some([("p0".to_owned(), Time(Timestamp::UNIX_EPOCH))].into()),
            ..PodDisruptionBudgetStatus::default()
        });
        let (now, later) = (Timestamp::from_second(60).unwrap(), Timestamp::from_second(120).unwrap());
        let (first, again) = status(&budget, &pods(2, 2), 2, now);
        assert_eq!((first.disruptions_allowed, again), (Some(0), Some(Duration::from_secs(60))));
        assert_eq!(status(&budget, &pods(2, 2), 2, later).0.disruptions_allowed, Some(1));
    }
}
