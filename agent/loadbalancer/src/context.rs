//! What load balancing depends on besides Services and slices: the node, its cluster, and the settings.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use skep_model::IpCidr;

/// What the operator chose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Size of Maglev tables; `None` when backends are chosen at random.
    pub maglev: Option<u16>,
    /// Where `spec.externalIPs` may lie; empty ignores them all.
    pub external_ranges: Vec<IpCidr>,
    /// The ranges of cluster IPs.
    pub service_ranges: Vec<IpCidr>,
    /// The ranges of pods.
    pub pod_ranges: Vec<IpCidr>,
    /// Whether backends answer outside clients directly, so that nodes pass packets on unchanged.
    pub direct_return: bool,
}

/// Where this load balancer works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Name of this node.
    pub node: String,
    /// Its zone, if it says so.
    pub zone: Option<String>,
    /// Its addresses that host ports answer on.
    pub addresses: BTreeSet<IpAddr>,
    /// Every address of every node, and whose it is.
    pub nodes: BTreeMap<IpAddr, String>,
    /// What the operator chose.
    pub settings: Settings,
}
