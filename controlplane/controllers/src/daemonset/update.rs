//! Replacing the pods of an old template, a few nodes at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use skep_api::int_or_string::{Rounding, scaled};

use crate::pod_control::PodRef;
use crate::pods;
use crate::revisions::HASH_LABEL;

/// How far an update may go at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Nodes whose pod may be missing.
    pub(crate) unavailable: usize,
    /// Nodes that may have two pods.
    pub(crate) surge: usize,
}

impl Bounds {
    /// The bounds of `set` for so many nodes; none when pods are replaced only as users delete them.
    pub(crate) fn of(set: &DaemonSet, nodes: usize) -> Option<Self> {
        let strategy = set.spec.as_ref()?.update_strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
            return None;
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let total = i32::try_from(nodes).unwrap_or(i32::MAX);
        let share =
            |value: &_| scaled(value, total, Rounding::Up).ok().and_then(|count| usize::try_from(count).ok());
        let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).and_then(share).unwrap_or(0);
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).and_then(share);
        let unavailable = unavailable.unwrap_or(usize::from(surge == 0));
        Some(Self { unavailable: if surge == 0 { unavailable.max(1) } else { unavailable }, surge })
    }
}

/// What an update does now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// Old pods to delete.
    pub(crate) delete: Vec<PodRef>,
    /// Nodes that get a new pod beside the old one.
    pub(crate) create_on: Vec<String>,
}

/// Whether `pod` is of the template called `hash`.
pub(crate) fn is_current(pod: &Pod, hash: &str) -> bool {
    pods::label(pod, HASH_LABEL) == Some(hash)
}

/// The next step, given the pods on each node that should have one.
pub(crate) fn step(
    bounds: Bounds,
    by_node: &BTreeMap<String, Vec<Arc<Pod>>>,
    hash: &str,
    min_ready: i32,
    now: Timestamp,
) -> Step {
    let available = |pod: &Arc<Pod>| !pods::is_terminating(pod) && pods::is_available(pod, min_ready, now);
    let mut step = Step::default();
    let mut down = 0;
    let mut surging = 0;
    let mut serving_old: Vec<(&String, &Arc<Pod>)> = Vec::new();
    for (node, list) in by_node {
        let live: Vec<&Arc<Pod>> = list.iter().filter(|pod| !pods::is_terminating(pod)).collect();
        let new = live.iter().find(|pod| is_current(pod, hash));
        let old = live.iter().find(|pod| !is_current(pod, hash));
        match (new, old) {
            (Some(new), Some(old)) => {
                if available(new) || !available(old) {
                    step.delete.push(PodRef::of(old));
                } else {
                    surging += 1;
                }
            }
            (Some(new), None) => down += usize::from(!available(new)),
            (None, Some(old)) if available(old) => serving_old.push((node, *old)),
            (None, Some(old)) => {
                // It serves nobody: replacing it takes nothing away.
                down += 1;
                step.delete.push(PodRef::of(old));
            }
            (None, None) => down += 1,
        }
    }
    let mut rest = serving_old.into_iter();
    let surge = bounds.surge.saturating_sub(surging);
    step.create_on.extend(rest.by_ref().take(surge).map(|(node, _)| node.clone()));
    let spare = bounds.unavailable.saturating_sub(down);
    step.delete.extend(rest.take(spare).map(|(_, pod)| PodRef::of(pod)));
    step
}
