//! Which pods are garbage.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;

use crate::pods;

/// Finished pods kept.
const FINISHED_KEPT: usize = 12_500;
/// How long a node has to be missing before its pods are: it may only have been re-registered.
const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Why a pod is garbage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Its node does not exist.
    NodeGone,
    /// Its node was declared out of service and the pod is on its way out.
    OutOfService,
    /// It was deleted before it had a node.
    NeverScheduled,
    /// There are too many finished ones.
    Surplus,
}

/// Since when nodes that pods refer to are missing.
#[derive(Debug, Default)]
pub(crate) struct Quarantine(HashMap<String, Timestamp>);

/// The garbage among `pods`.
pub(crate) fn plan(
    pods: &[Arc<Pod>],
    nodes: &[Arc<Node>],
    quarantine: &mut Quarantine,
    now: Timestamp,
) -> Vec<(Arc<Pod>, Reason)> {
    let known: HashMap<String, &Arc<Node>> = nodes.iter().map(|node| (node.name_any(), node)).collect();
    let missing: HashSet<&str> =
        pods.iter().filter_map(|pod| pods::node_of(pod)).filter(|node| !known.contains_key(*node)).collect();
    quarantine.0.retain(|node, _| missing.contains(node.as_str()));
    for node in missing {
        quarantine.0.entry(node.to_owned()).or_insert(now);
    }
    let mut garbage = Vec::new();
    for pod in pods {
        let reason = match pods::node_of(pod) {
            None if pods::is_terminating(pod) => Some(Reason::NeverScheduled),
            None => None,
            Some(name) => match known.get(name) {
                Some(node) => {
                    (pods::is_terminating(pod) && is_out_of_service(node)).then_some(Reason::OutOfService)
                }
                None => {
                    let since = quarantine.0.get(name);
                    since
                        .is_some_and(|since| now.duration_since(*since) >= QUARANTINE)
                        .then_some(Reason::NodeGone)
                }
            },
        };
        garbage.extend(reason.map(|reason| (pod.clone(), reason)));
    }
    garbage.extend(surplus(pods).map(|pod| (pod, Reason::Surplus)));
    garbage
}

fn is_out_of_service(node: &Node) -> bool {
    let ready = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready =
        ready.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    !ready && taints.into_iter().flatten().any(|taint| taint.key == OUT_OF_SERVICE)
}

fn surplus(pods: &[Arc<Pod>]) -> impl Iterator<Item = Arc<Pod>> {
    let mut finished: Vec<&Arc<Pod>> =
        pods.iter().filter(|pod| pods::is_finished(pod) && !pods::is_terminating(pod)).collect();
    finished.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let count = finished.len().saturating_sub(FINISHED_KEPT);
    finished.into_iter().take(count).cloned().collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn pod(node: Option<&str>, terminating: bool) -> Arc<Pod> {
        let spec = PodSpec { node_name: node.map(Into::into), ..PodSpec::default() };
        let mut pod = Pod { spec: Some(spec), ..Pod::default() };
        pod.metadata.deletion_timestamp = terminating.then_some(Time(Timestamp::UNIX_EPOCH));
        Arc::new(pod)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn pods_of_a_missing_node_go_after_quarantine() {
        let pods = [pod(Some("gone"), false)];
        let mut quarantine = Quarantine::default();
        assert!(plan(&pods, &[], &mut quarantine, at(0)).is_empty());
        assert!(plan(&pods, &[], &mut quarantine, at(39)).is_empty());
        let garbage = plan(&pods, &[], &mut quarantine, at(40));
        assert_eq!(garbage.iter().map(|(_, reason)| *reason).collect::<Vec<_>>(), [Reason::NodeGone]);
    }

    #[test]
    fn node_that_returns_starts_the_quarantine_anew() {
        let pods = [pod(Some("n"), false)];
        let mut node = Node::default();
        node.metadata.name = Some("n".into());
        let mut quarantine = Quarantine::default();
        plan(&pods, &[], &mut quarantine, at(0));
        plan(&pods, &[Arc::new(node)], &mut quarantine, at(20));
        assert!(plan(&pods, &[], &mut quarantine, at(45)).is_empty());
    }

    #[test]
    fn deleted_pod_without_a_node_goes_at_once() {
        let pods = [pod(None, true), pod(None, false)];
        let garbage = plan(&pods, &[], &mut Quarantine::default(), at(0));
        assert_eq!(garbage.len(), 1);
    }
}
