//! Room for a pod that fits nowhere, by removing pods of lower priority.
//!
//! On each node that lacks only what pods take (resources, ports) all less important pods are taken away in thought;
//! then as many as possible are let back in, the most important first. The node whose victims matter least is chosen.
//! Disruption budgets are not looked at yet.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// Nodes looked at: enough to choose from.
const CANDIDATES: usize = 100;

/// A node that will have room once these pods are gone.
#[derive(Debug, Clone)]
pub struct Room {
    /// Name of the node.
    pub node: String,
    /// Pods to remove.
    pub victims: Vec<Arc<PodInfo>>,
}

/// Finds room for `pod` on one of `nodes`; `fits` says whether it fits on a node as imagined.
pub fn make_room<'a>(
    pod: &PodInfo,
    nodes: impl Iterator<Item = &'a NodeInfo>,
    fits: impl Fn(&NodeInfo) -> bool,
) -> Option<Room> {
    let policy = pod.pod.spec.as_ref().and_then(|spec| spec.preemption_policy.as_deref());
    if policy == Some("Never") {
        return None;
    }
    let rooms = nodes.filter_map(|node| {
        let victims = victims(pod, node, &fits)?;
        Some(Room { node: node.name.clone(), victims })
    });
    rooms.take(CANDIDATES).min_by_key(cost)
}

/// The pods of `node` that have to go for `pod`.
fn victims(pod: &PodInfo, node: &NodeInfo, fits: impl Fn(&NodeInfo) -> bool) -> Option<Vec<Arc<PodInfo>>> {
    let mut lesser: Vec<Arc<PodInfo>> =
        node.pods.iter().filter(|other| other.priority < pod.priority).cloned().collect();
    if lesser.is_empty() {
        return None;
    }
    let mut imagined = node.clone();
    for other in &lesser {
        imagined.remove(&other.uid);
    }
    if !fits(&imagined) {
        return None;
    }
    lesser.sort_by_key(|other| (Reverse(other.priority), created(other)));
    let mut victims = Vec::new();
    for other in lesser {
        imagined.add(other.clone());
        if !fits(&imagined) {
            imagined.remove(&other.uid);
            victims.push(other);
        }
    }
    Some(victims)
}

/// How much is lost: the most important victim first, then all of them together, then how many.
fn cost(room: &Room) -> (i32, i64, usize) {
    let highest = room.victims.iter().map(|victim| victim.priority).max().unwrap_or(i32::MIN);
    let sum = room.victims.iter().map(|victim| i64::from(victim.priority) - i64::from(i32::MIN)).sum();
    (highest, sum, room.victims.len())
}

fn created(pod: &PodInfo) -> Option<k8s_openapi::jiff::Timestamp> {
    pod.pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}
