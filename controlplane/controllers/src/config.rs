//! What the controllers need from their process.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use skep_model::{IpFamily, Ranges};
use skep_pki::Authority;

/// Settings and handles for [`run`](crate::run).
#[derive(Clone)]
pub struct ControllersConfig {
    /// Client acting as `system:kube-controller-manager`.
    pub client: Client,
    /// Where the nodes' pod ranges are cut from.
    pub cluster_cidr: Ranges,
    /// Prefix length of one node's IPv4 pod range.
    pub node_mask_v4: u8,
    /// Prefix length of one node's IPv6 pod range.
    pub node_mask_v6: u8,
    /// The cluster CA: signs approved certificate requests, and its certificate is published in every namespace as
    /// `kube-root-ca.crt`.
    pub authority: Arc<Authority>,
    /// A node whose lease is older than this is unreachable.
    pub node_grace: Duration,
}

impl ControllersConfig {
    /// The settings users expect: /24 and /64 a node, unreachable after 40 s.
    pub fn new(client: Client, cluster_cidr: Ranges, authority: Arc<Authority>) -> Self {
        let node_grace = Duration::from_secs(40);
        Self { client, cluster_cidr, node_mask_v4: 24, node_mask_v6: 64, authority, node_grace }
    }

    /// Prefix length of one node's pod range of a family.
    pub(crate) fn node_mask(&self, family: IpFamily) -> u8 {
        match family {
            IpFamily::V4 => self.node_mask_v4,
            IpFamily::V6 => self.node_mask_v6,
        }
    }
}
