//! How replicas move from old sets to the new one, within the bounds of the strategy.

use k8s_openapi::api::apps::v1::{DeploymentSpec, ReplicaSet};
use skep_api::int_or_string::{Rounding, scaled};

use super::template::{available, replicas};

/// The size of a Deployment and how far a rollout may stray from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Replicas asked for.
    pub(crate) replicas: i32,
    /// Pods above that.
    pub(crate) surge: i32,
    /// Pods that may be missing.
    pub(crate) unavailable: i32,
    /// Whether old pods end before new ones begin.
    pub(crate) recreate: bool,
}

impl Bounds {
    /// The bounds in `spec`. Surge rounds up, unavailability down; both zero would never move, so one may be missing.
    pub(crate) fn of(spec: &DeploymentSpec) -> Self {
        let replicas = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
            return Self { replicas, surge: 0, unavailable: replicas, recreate: true };
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let share =
            |value: Option<&_>, rounding| value.and_then(|value| scaled(value, replicas, rounding).ok());
        let quarter = |rounding| skep_api::int_or_string::of_total(25, replicas, rounding);
        let surge = share(rolling.and_then(|rolling| rolling.max_surge.as_ref()), Rounding::Up);
        let unavailable = share(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), Rounding::Down);
        let surge = surge.unwrap_or_else(|| quarter(Rounding::Up));
        let mut unavailable = unavailable.unwrap_or_else(|| quarter(Rounding::Down)).min(replicas);
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        Self { replicas, surge, unavailable, recreate: false }
    }

    /// Pods that must stay available.
    pub(crate) fn minimum(&self) -> i32 {
        (self.replicas - self.unavailable).max(0)
    }

    /// Pods that may exist.
    pub(crate) fn maximum(&self) -> i32 {
        if self.recreate { self.replicas } else { self.replicas.saturating_add(self.surge) }
    }
}

/// The size the new set may have, when all sets together ask for `total`.
pub(crate) fn new_size(bounds: Bounds, new: i32, total: i32) -> i32 {
    if new >= bounds.replicas || bounds.recreate {
        return bounds.replicas;
    }
    let room = (bounds.maximum() - total).max(0);
    new + room.min(bounds.replicas - new)
}

/// One rolling step: grows (or shrinks) the new set, then shrinks old ones. Returns the sizes of `old`, oldest first,
/// and of the new set.
pub(crate) fn step(bounds: Bounds, new: &ReplicaSet, old: &[&ReplicaSet]) -> (i32, Vec<i32>) {
    let mut sizes: Vec<i32> = old.iter().map(|set| replicas(set)).collect();
    let total: i32 = sizes.iter().sum::<i32>() + replicas(new);
    let size = new_size(bounds, replicas(new), total);
    let all = sizes.iter().sum::<i32>() + size;
    let missing = (size - available(new)).max(0);
    let spare = all - bounds.minimum() - missing;
    if spare > 0 {
        let removed = remove_unhealthy(&mut sizes, old, spare);
        remove_healthy(bounds, &mut sizes, old, available(new).min(size), spare - removed);
    }
    (size, sizes)
}

/// Old pods that are not available serve nobody: they go first, as far as `spare` allows.
fn remove_unhealthy(sizes: &mut [i32], old: &[&ReplicaSet], spare: i32) -> i32 {
    let mut removed = 0;
    for (size, set) in sizes.iter_mut().zip(old) {
        let unhealthy = (*size - available(set)).clamp(0, spare - removed);
        *size -= unhealthy;
        removed += unhealthy;
    }
    removed
}

/// Available old pods go as long as enough others are available.
fn remove_healthy(bounds: Bounds, sizes: &mut [i32], old: &[&ReplicaSet], new_available: i32, spare: i32) {
    // A set that was just shrunk may still report more available pods than it keeps.
    let kept = |size: i32, set: &ReplicaSet| available(set).min(size);
    let serving: i32 = sizes.iter().zip(old).map(|(size, set)| kept(*size, set)).sum::<i32>() + new_available;
    let mut budget = (serving - bounds.minimum()).min(spare).max(0);
    for size in sizes.iter_mut() {
        let removed = (*size).min(budget);
        *size -= removed;
        budget -= removed;
    }
}
