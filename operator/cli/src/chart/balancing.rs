//! The chart's values on how Services are balanced.

use serde::{Deserialize, Serialize};

/// How Services are balanced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LoadBalancer {
    /// How packets of outside clients reach backends on other nodes.
    pub(crate) mode: Mode,
    /// How backends are chosen for outside clients.
    pub(crate) algorithm: Algorithm,
    /// Positions in each Service's Maglev table.
    pub(crate) maglev_table_size: u16,
    /// Ports on nodes.
    pub(crate) node_ports: NodePorts,
    /// Addresses that Services ask for.
    #[serde(rename = "externalIPs")]
    pub(crate) external_ips: ExternalIps,
    /// Whether packets are balanced before the stack.
    pub(crate) xdp: Xdp,
    /// Devices that outside clients come in by; empty for those with a node address or the default route.
    pub(crate) devices: Vec<String>,
    /// Where cloud load balancers ask for kube-proxy's health.
    pub(crate) kube_proxy_health: String,
    /// Whether nodes answer on the health check node ports of Services.
    pub(crate) health_check_node_ports: bool,
}

/// How packets of outside clients reach backends on other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Answers come back through the node that they came to.
    Snat,
    /// The backend's node answers the client itself.
    Dsr,
}

/// How backends are chosen for outside clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Algorithm {
    /// The same choice on every node.
    Maglev,
    /// By chance.
    Random,
}

/// Whether packets are balanced before the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Xdp {
    /// Never.
    Off,
    /// On every uplink that can.
    Auto,
}

/// Ports on nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodePorts {
    /// First and last, with a hyphen between.
    pub(crate) range: String,
    /// Ranges of the node addresses that they answer on; empty for all.
    pub(crate) addresses: Vec<String>,
}

/// Addresses that Services ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ExternalIps {
    /// Where they may lie; empty ignores them.
    pub(crate) allowed_ranges: Vec<String>,
}
