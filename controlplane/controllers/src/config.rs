//! What the controllers need from their process.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use skep_model::IpCidr;
use skep_pki::Authority;

/// Settings and handles for [`run`](crate::run).
#[derive(Clone)]
pub struct ControllersConfig {
    /// Client acting as `system:kube-controller-manager`.
    pub client: Client,
    /// Where the nodes' pod ranges are cut from.
    pub cluster_cidr: IpCidr,
    /// Prefix length of one node's pod range.
    pub node_mask: u8,
    /// The cluster CA: signs approved certificate requests, and its certificate is published in every namespace as
    /// `kube-root-ca.crt`.
    pub authority: Arc<Authority>,
    /// A node whose lease is older than this is unreachable.
    pub node_grace: Duration,
}

impl ControllersConfig {
    /// The settings users expect: /24 (or /64) a node, unreachable after 40 s.
    pub fn new(client: Client, cluster_cidr: IpCidr, authority: Arc<Authority>) -> Self {
        let node_mask = if cluster_cidr.network().is_ipv4() { 24 } else { 64 };
        Self { client, cluster_cidr, node_mask, authority, node_grace: Duration::from_secs(40) }
    }
}
