//! Resizing a Deployment that has several sets running, without letting a rollout proceed.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::revision::{DESIRED, MAXIMUM, number};
use super::rolling::Bounds;
use super::template::{available, replicas};

/// Whether the Deployment was resized since its running sets were.
pub(crate) fn is_resized<'a>(bounds: Bounds, sets: impl IntoIterator<Item = &'a ReplicaSet>) -> bool {
    let stale =
        |set: &ReplicaSet| number(set, DESIRED).is_some_and(|size| size != i64::from(bounds.replicas));
    sets.into_iter().any(|set| replicas(set) > 0 && stale(set))
}

/// Sizes of `sets` (new one marked by index) after the resize.
pub(crate) fn resize(
    deployment: &Deployment,
    bounds: Bounds,
    sets: &[&ReplicaSet],
    new: Option<usize>,
) -> Vec<i32> {
    let mut sizes: Vec<i32> = sets.iter().map(|set| replicas(set)).collect();
    if let Some(only) = only_running(sets, new) {
        sizes[only] = bounds.replicas;
    } else if new.is_some_and(|new| is_saturated(bounds, sets[new])) {
        for (index, size) in sizes.iter_mut().enumerate() {
            if Some(index) != new {
                *size = 0;
            }
        }
    } else if !bounds.recreate {
        proportionally(deployment, bounds, sets, &mut sizes);
    }
    sizes
}

/// The one running set; when none runs, the new one or the newest.
fn only_running(sets: &[&ReplicaSet], new: Option<usize>) -> Option<usize> {
    let running: Vec<usize> = (0..sets.len()).filter(|index| replicas(sets[*index]) > 0).collect();
    match running[..] {
        [] => new.or_else(|| (0..sets.len()).max_by_key(|index| created(sets[*index]))),
        [only] => Some(only),
        _ => None,
    }
}

fn is_saturated(bounds: Bounds, set: &ReplicaSet) -> bool {
    replicas(set) == bounds.replicas
        && number(set, DESIRED) == Some(i64::from(bounds.replicas))
        && available(set) == bounds.replicas
}

/// Spreads the change over the running sets in proportion to their sizes; the largest takes what rounding leaves.
fn proportionally(deployment: &Deployment, bounds: Bounds, sets: &[&ReplicaSet], sizes: &mut [i32]) {
    let mut running: Vec<usize> = (0..sets.len()).filter(|index| sizes[*index] > 0).collect();
    let total: i32 = running.iter().map(|index| sizes[*index]).sum();
    let allowed = if bounds.replicas > 0 { bounds.maximum() } else { 0 };
    let change = allowed - total;
    if change == 0 {
        return;
    }
    let before: Vec<i32> = sizes.to_vec();
    running.sort_by_key(|index| {
        let age = created(sets[*index]);
        (
            std::cmp::Reverse(before[*index]),
            if change > 0 { std::cmp::Reverse(age) } else { std::cmp::Reverse(None) },
            age,
        )
    });
    let mut applied = 0;
    for index in &running {
        let share = share(deployment, bounds, sets[*index], change, applied);
        sizes[*index] += share;
        applied += share;
    }
    if let Some(largest) = running.first() {
        sizes[*largest] = (sizes[*largest] + change - applied).max(0);
    }
}

fn share(deployment: &Deployment, bounds: Bounds, set: &ReplicaSet, change: i32, applied: i32) -> i32 {
    let size = replicas(set);
    let left = change - applied;
    if size == 0 || left == 0 {
        return 0;
    }
    if bounds.replicas == 0 {
        return -size;
    }
    let was = number(set, MAXIMUM)
        .filter(|maximum| *maximum > 0)
        .or_else(|| deployment.status.as_ref().and_then(|status| status.replicas).map(i64::from))
        .unwrap_or(0);
    if was == 0 {
        return 0;
    }
    // Rounded to the nearest whole number.
    let target = (2 * i64::from(size) * i64::from(bounds.maximum()) + was) / (2 * was);
    let fraction = i32::try_from(target).unwrap_or(i32::MAX) - size;
    if change > 0 { fraction.min(left) } else { fraction.max(left) }
}

fn created(set: &ReplicaSet) -> Option<jiff::Timestamp> {
    set.metadata.creation_timestamp.as_ref().map(|time| time.0)
}
