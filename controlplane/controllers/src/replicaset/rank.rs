//! Which pods go first when a ReplicaSet shrinks.
//!
//! Least useful first: unassigned, then by phase, then not ready, cheapest by annotation, most crowded node, ready for
//! the shortest time, most restarts, newest. Times are compared by orders of magnitude, so that pods of about one age
//! are not always removed from the same node.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::pods;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Orders `pods` by what goes first. `related` are the pods counted for crowding (of the same application).
pub(crate) fn by_deletion_order(pods: &mut [Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) {
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for node in related.iter().filter(|pod| pods::is_active(pod)).filter_map(|pod| pods::node_of(pod)) {
        *crowd.entry(node).or_default() += 1;
    }
    pods.sort_by(|a, b| compare(a, b, &crowd, now));
}

fn compare(a: &Pod, b: &Pod, crowd: &HashMap<&str, usize>, now: Timestamp) -> Ordering {
    let assigned = |pod| pods::node_of(pod).is_some();
    let crowded = |pod| pods::node_of(pod).and_then(|node| crowd.get(node)).copied().unwrap_or(0);
    let ready_magnitude = |pod| pods::ready_since(pod).map_or(0, |since| magnitude(since, now));
    let age_magnitude =
        |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map_or(0, |time| magnitude(time.0, now));
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
        .then_with(|| pods::is_ready(a).cmp(&pods::is_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| crowded(b).cmp(&crowded(a)))
        .then_with(|| ready_magnitude(a).cmp(&ready_magnitude(b)))
        .then_with(|| pods::restarts(b).cmp(&pods::restarts(a)))
        .then_with(|| age_magnitude(a).cmp(&age_magnitude(b)))
        .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}

fn phase_rank(pod: &Pod) -> u8 {
    match pods::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    pod.annotations().get(DELETION_COST).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The number of bits of the seconds since `time`: 0 for now, 1 for a second, 2 for two or three, ...
fn magnitude(time: Timestamp, now: Timestamp) -> u32 {
    let seconds = u64::try_from(now.duration_since(time).as_secs()).unwrap_or(0);
    u64::BITS - seconds.leading_zeros()
}
