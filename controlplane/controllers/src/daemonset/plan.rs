//! What a DaemonSet needs: pods to create and delete, and its status.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;

use super::placement::{Rules, Standing, target_node};
use super::update::{Bounds, Step, is_current, step};
use crate::pod_control::PodRef;
use crate::pods;

/// Pods created or deleted in one go.
const BURST: usize = 250;

/// What was found.
pub(crate) struct Observed<'a> {
    /// The set.
    pub(crate) set: &'a DaemonSet,
    /// All nodes.
    pub(crate) nodes: &'a [Arc<Node>],
    /// The set's pods, in any state.
    pub(crate) pods: &'a [Arc<Pod>],
    /// Name of the current revision.
    pub(crate) hash: &'a str,
}

/// What to do about the pods.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Nodes that get a pod.
    pub(crate) create_on: Vec<String>,
    /// Pods to delete.
    pub(crate) delete: Vec<PodRef>,
    /// Failed pods to replace: name of the node, and the pod.
    pub(crate) failed: Vec<(String, PodRef)>,
}

/// Plans the pods: first that each node has what it should, then the update.
pub(crate) fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if observed.set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let rules = Rules::of(observed.set);
    let mut by_node = by_node(observed.pods);
    let mut wanted: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for node in observed.nodes {
        let name = node.name_any();
        let pods = by_node.remove(&name).unwrap_or_default();
        match rules.standing(node) {
            Standing::Wanted => {
                let kept = keep(&name, pods, observed.hash, &mut plan);
                if kept.is_empty() {
                    plan.create_on.push(name.clone());
                }
                wanted.insert(name, kept);
            }
            Standing::Tolerated => drop(keep(&name, pods, observed.hash, &mut plan)),
            Standing::Unwanted => {
                plan.delete
                    .extend(pods.iter().filter(|pod| !pods::is_terminating(pod)).map(|pod| PodRef::of(pod)));
            }
        }
    }
    let settled = plan.create_on.is_empty() && plan.delete.is_empty() && plan.failed.is_empty();
    if let Some(bounds) = Bounds::of(observed.set, wanted.len()).filter(|_| settled) {
        let Step { delete, create_on } = step(bounds, &wanted, observed.hash, min_ready(observed.set), now);
        plan.delete = delete;
        plan.create_on = create_on;
    }
    plan.create_on.truncate(BURST);
    plan.delete.truncate(BURST);
    plan
}

fn by_node(pods: &[Arc<Pod>]) -> BTreeMap<String, Vec<Arc<Pod>>> {
    let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        if let Some(node) = target_node(pod) {
            by_node.entry(node.to_owned()).or_default().push(pod.clone());
        }
    }
    by_node
}

/// The pods that may stay on a node: those on their way out, and of the rest one of each template (old and new), the
/// oldest. Finished ones are replaced.
fn keep(node: &str, mut pods: Vec<Arc<Pod>>, hash: &str, plan: &mut Plan) -> Vec<Arc<Pod>> {
    pods.sort_by_key(|pod| {
        let unassigned = pods::node_of(pod).is_none();
        (unassigned, pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
    });
    let mut kept: Vec<Arc<Pod>> = Vec::new();
    for pod in pods {
        let doubled = kept
            .iter()
            .any(|other| !pods::is_terminating(other) && is_current(other, hash) == is_current(&pod, hash));
        if pods::is_terminating(&pod) {
            kept.push(pod);
        } else if pods::is_finished(&pod) {
            plan.failed.push((node.to_owned(), PodRef::of(&pod)));
            kept.push(pod);
        } else if doubled {
            plan.delete.push(PodRef::of(&pod));
        } else {
            kept.push(pod);
        }
    }
    kept
}

fn min_ready(set: &DaemonSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
}

/// The status of the set.
pub(crate) fn status(observed: &Observed<'_>, now: Timestamp) -> DaemonSetStatus {
    let rules = Rules::of(observed.set);
    let by_node = by_node(observed.pods);
    let none = Vec::new();
    let (mut desired, mut scheduled, mut misscheduled, mut ready, mut available, mut updated) =
        (0, 0, 0, 0, 0, 0);
    for node in observed.nodes {
        let pods = by_node.get(&node.name_any()).unwrap_or(&none);
        if rules.standing(node) != Standing::Wanted {
            misscheduled += i32::from(rules.standing(node) == Standing::Unwanted && !pods.is_empty());
            continue;
        }
        desired += 1;
        // The current pod speaks for the node when it is ready, the old one otherwise.
        let live = || pods.iter().filter(|pod| !pods::is_terminating(pod));
        let speaks = live().find(|pod| pods::is_ready(pod)).or_else(|| live().next());
        let Some(pod) = speaks else { continue };
        scheduled += 1;
        ready += i32::from(pods::is_ready(pod));
        available += i32::from(pods::is_available(pod, min_ready(observed.set), now));
        updated += i32::from(live().any(|pod| is_current(pod, observed.hash)));
    }
    let old = observed.set.status.clone().unwrap_or_default();
    DaemonSetStatus {
        current_number_scheduled: scheduled,
        desired_number_scheduled: desired,
        number_misscheduled: misscheduled,
        number_ready: ready,
        number_available: Some(available),
        number_unavailable: Some(desired - available),
        updated_number_scheduled: Some(updated),
        observed_generation: observed.set.metadata.generation,
        collision_count: old.collision_count,
        conditions: old.conditions,
    }
}

#[cfg(test)]
mod tests;
