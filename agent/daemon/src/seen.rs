//! What the load balancer wants to know of Nodes and Pods, beside what everybody else does.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, Pod};
use skep_loadbalancer::HostPorts;

use crate::facts::{NodeFacts, PodFacts};

/// The node's zone, as clouds and administrators label it.
const ZONE: &str = "topology.kubernetes.io/zone";
/// Set by the cluster autoscaler on nodes that it is about to delete.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// What matters of a Node to Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeState {
    /// Its zone.
    pub(crate) zone: Option<String>,
    /// Whether it is about to go: load balancers shall send it nothing new.
    pub(crate) is_leaving: bool,
    /// Addresses that it is known by outside the cluster.
    pub(crate) external: Vec<IpAddr>,
}

/// A Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeSeen {
    pub(crate) facts: NodeFacts,
    pub(crate) state: NodeState,
}

impl From<&Node> for NodeSeen {
    fn from(node: &Node) -> Self {
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let external = addresses.filter(|address| address.type_ == "ExternalIP");
        let is_deleted = node.metadata.deletion_timestamp.is_some();
        NodeSeen {
            facts: NodeFacts::of(node),
            state: NodeState {
                zone: node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE)).cloned(),
                is_leaving: is_deleted || taints.into_iter().any(|taint| taint.key == TO_BE_DELETED),
                external: external.filter_map(|address| address.address.parse().ok()).collect(),
            },
        }
    }
}

/// A Pod of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodSeen {
    pub(crate) facts: PodFacts,
    pub(crate) host_ports: Option<HostPorts>,
}

impl From<&Pod> for PodSeen {
    fn from(pod: &Pod) -> Self {
        let host_ports = HostPorts::of(pod).unwrap_or_else(|error| {
            tracing::warn!(pod = ?pod.metadata.name, %error, "its host ports are not served");
            None
        });
        PodSeen { facts: PodFacts::of(pod), host_ports }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(json: serde_json::Value) -> NodeState {
        NodeSeen::from(&serde_json::from_value::<Node>(json).unwrap()).state
    }

    #[test]
    fn a_node_that_is_being_deleted_is_leaving() {
        let metadata = serde_json::json!({"name": "n", "labels": {ZONE: "a"}});
        let plain = node(serde_json::json!({"metadata": metadata}));
        assert_eq!((plain.zone.as_deref(), plain.is_leaving), (Some("a"), false));
        let taint = serde_json::json!([{"key": TO_BE_DELETED, "effect": "NoSchedule"}]);
        assert!(node(serde_json::json!({"metadata": metadata, "spec": {"taints": taint}})).is_leaving);
        let deleted = serde_json::json!({"name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert!(node(serde_json::json!({"metadata": deleted})).is_leaving);
    }

    #[test]
    fn host_ports_are_those_of_pods_with_a_network_of_their_own() {
        let pod = |host_network: bool, phase: &str| {
            let json = serde_json::json!({
                "metadata": {"namespace": "a", "name": "b"},
                "spec": {"hostNetwork": host_network, "containers": [
                    {"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]},
                ]},
                "status": {"phase": phase, "podIPs": [{"ip": "10.244.0.5"}]},
            });
            PodSeen::from(&serde_json::from_value::<Pod>(json).unwrap()).host_ports
        };
        assert_eq!(pod(false, "Running").unwrap().ports.len(), 1);
        assert_eq!(pod(true, "Running"), None);
        assert_eq!(pod(false, "Succeeded"), None);
    }
}
