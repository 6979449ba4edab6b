//! When a node counts as lost.
//!
//! A kubelet renews its Lease every ten seconds. What counts is when *we* last saw a renewal, by our clock: neither a
//! node's clock nor a pause of this process makes a node lost.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The last sign of life of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Health {
    sign: (Option<Timestamp>, Option<Timestamp>),
    seen: Timestamp,
}

impl Health {
    /// Takes in what the API shows now.
    pub(crate) fn observe(before: Option<&Self>, node: &Node, lease: Option<&Lease>, now: Timestamp) -> Self {
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref()).map(|time| time.0);
        let heartbeat = ready(node).and_then(|ready| ready.last_heartbeat_time.as_ref()).map(|time| time.0);
        let sign = (renewed, heartbeat);
        match before {
            Some(before) if before.sign == sign => before.clone(),
            _ => Self { sign, seen: now },
        }
    }

    /// How long until the node counts as lost; none if it does.
    pub(crate) fn left(&self, grace: Duration, now: Timestamp) -> Option<Duration> {
        let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
        let left = grace - now.duration_since(self.seen);
        if left.is_positive() { Duration::try_from(left).ok() } else { None }
    }
}

/// The Ready condition of a node.
pub(crate) fn ready(node: &Node) -> Option<&NodeCondition> {
    condition(node, "Ready")
}

/// A condition of a node.
pub(crate) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Whether the node says that it is ready.
pub(crate) fn is_ready(node: &Node) -> bool {
    ready(node).is_some_and(|ready| ready.status == "True")
}

/// The conditions of a lost node: unknown, whatever it last said. None if they are so already.
pub(crate) fn unknown_conditions(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let changed: Vec<NodeCondition> = CONDITIONS
        .iter()
        .filter(|kind| condition(node, kind).is_none_or(|condition| condition.status != "Unknown"))
        .map(|kind| unknown(condition(node, kind), kind, now))
        .collect();
    (!changed.is_empty()).then_some(changed)
}

fn unknown(old: Option<&NodeCondition>, kind: &str, now: Timestamp) -> NodeCondition {
    let (reason, message) = match old {
        Some(_) => ("NodeStatusUnknown", "The kubelet has stopped posting the node's status."),
        None => ("NodeStatusNeverUpdated", "The kubelet has never posted the node's status."),
    };
    NodeCondition {
        type_: kind.into(),
        status: "Unknown".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_heartbeat_time: old.and_then(|old| old.last_heartbeat_time.clone()),
        last_transition_time: Some(Time(now)),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn lease(second: i64) -> Lease {
        let spec = LeaseSpec { renew_time: Some(MicroTime(at(second))), ..LeaseSpec::default() };
        Lease { spec: Some(spec), ..Lease::default() }
    }

    const GRACE: Duration = Duration::from_secs(40);

    #[test]
    fn node_is_lost_when_no_renewal_was_seen_for_the_grace_period() {
        let node = Node::default();
        let first = Health::observe(None, &node, Some(&lease(0)), at(100));
        let same = Health::observe(Some(&first), &node, Some(&lease(0)), at(139));
        assert_eq!(same.left(GRACE, at(139)), Some(Duration::from_secs(1)));
        assert_eq!(same.left(GRACE, at(140)), None);
        let renewed = Health::observe(Some(&same), &node, Some(&lease(10)), at(139));
        assert_eq!(renewed.left(GRACE, at(140)), Some(Duration::from_secs(39)));
    }

    #[test]
    fn wrong_clock_of_a_node_does_not_matter() {
        let health = Health::observe(None, &Node::default(), Some(&lease(-9999)), at(0));
        assert!(health.left(GRACE, at(1)).is_some());
    }

    #[test]
    fn lost_node_is_unknown_once() {
        let mut node = Node::default();
        let conditions = unknown_conditions(&node, at(0)).unwrap();
        assert_eq!(conditions.len(), 4);
        node.status.get_or_insert_default().conditions = Some(conditions);
        assert!(unknown_conditions(&node, at(1)).is_none());
    }
}
