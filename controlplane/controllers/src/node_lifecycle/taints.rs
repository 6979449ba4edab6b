//! The taints that follow from a node's state.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::health::{condition, ready};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// Whether pods are driven off nodes in trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evictions {
    /// Yes.
    Allowed,
    /// No node is ready: the trouble is most likely ours, and there is nowhere to go.
    Suspended,
}

/// The taints that `node` should have; none if it has them.
pub(crate) fn plan(node: &Node, evictions: Evictions, now: Timestamp) -> Option<Vec<Taint>> {
    let current = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let wanted = wanted(node, evictions);
    let is_wanted = |taint: &Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut taints: Vec<Taint> =
        current.iter().filter(|taint| !is_managed(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in &wanted {
        if !taints.iter().any(|taint| taint.key == *key && taint.effect == *effect) {
            let time_added = (*effect == "NoExecute").then_some(Time(now));
            taints.push(Taint { key: (*key).into(), effect: (*effect).into(), value: None, time_added });
        }
    }
    (taints != current).then_some(taints)
}

fn wanted(node: &Node, evictions: Evictions) -> Vec<(&'static str, &'static str)> {
    let mut wanted = Vec::new();
    let trouble = match ready(node).map(|ready| ready.status.as_str()) {
        Some("True") => None,
        Some("Unknown") => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    if let Some(key) = trouble {
        wanted.push((key, "NoSchedule"));
        if evictions == Evictions::Allowed {
            wanted.push((key, "NoExecute"));
        }
    }
    for (kind, key) in PRESSURES {
        if condition(node, kind).is_some_and(|condition| condition.status == "True") {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    wanted
}

fn is_managed(taint: &Taint) -> bool {
    let key = taint.key.as_str();
    match taint.effect.as_str() {
        "NoExecute" => [NOT_READY, UNREACHABLE].contains(&key),
        "NoSchedule" => {
            [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key)
                || PRESSURES.iter().any(|(_, pressure)| *pressure == key)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{NodeCondition, NodeSpec};

    use super::*;

    fn node(ready: &str, taints: Vec<Taint>) -> Node {
        let mut node =
            Node { spec: Some(NodeSpec { taints: Some(taints), ..NodeSpec::default() }), ..Node::default() };
        let condition =
            NodeCondition { type_: "Ready".into(), status: ready.into(), ..NodeCondition::default() };
        node.status.get_or_insert_default().conditions = Some(vec![condition]);
        node
    }

    fn keys(taints: &[Taint]) -> Vec<(&str, &str)> {
        taints.iter().map(|taint| (taint.key.as_str(), taint.effect.as_str())).collect()
    }

    #[test]
    fn taints_follow_the_ready_condition_and_leave_others_alone() {
        let now = Timestamp::UNIX_EPOCH;
        let own = Taint { key: "mine".into(), effect: "NoSchedule".into(), ..Taint::default() };
        let lost = plan(&node("Unknown", vec![own.clone()]), Evictions::Allowed, now).unwrap();
        assert_eq!(
            keys(&lost),
            [("mine", "NoSchedule"), (UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]
        );
        assert!(plan(&node("Unknown", lost.clone()), Evictions::Allowed, now).is_none());
        let back = plan(&node("True", lost), Evictions::Allowed, now).unwrap();
        assert_eq!(back, [own]);
    }

    #[test]
    fn nobody_is_driven_off_when_no_node_is_ready() {
        let taints = plan(&node("False", vec![]), Evictions::Suspended, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(keys(&taints), [(NOT_READY, "NoSchedule")]);
    }
}
