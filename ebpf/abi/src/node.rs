//! Read-only configuration of a node: a global that programs are loaded with.

use crate::{
    Plain,
    addr::{Mac, V4},
    layout,
};

/// Name of the global in every object that uses it.
pub const NODE_CONFIG: &str = "NODE";

/// What programs need to know about their node. Zero interface indexes mean "absent".
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeConfig {
    /// Underlay address.
    pub node_ip: V4,
    /// Gateway address of the node's pods.
    pub gateway: V4,
    /// Network of the Service range.
    pub service_net: V4,
    /// Mask of the Service range, network order.
    pub service_mask: V4,
    /// Network of all pods of the cluster.
    pub cluster_net: V4,
    /// Mask of all pods of the cluster, network order.
    pub cluster_mask: V4,
    /// Interface index of the uplink.
    pub uplink: u32,
    /// Interface index of the tunnel device.
    pub vxlan: u32,
    /// Interface index of the stack's side of the node-side veth pair (`skep_host`).
    pub host: u32,
    /// Interface index of the programs' side of the node-side veth pair (`skep_net`).
    pub net: u32,
    /// Link-layer address of the stack's side of the node-side veth pair.
    pub host_mac: Mac,
    /// Link-layer address of the programs' side of the node-side veth pair.
    pub net_mac: Mac,
}

layout!(NodeConfig, size = 52, fields = [
    node_ip: V4, gateway: V4, service_net: V4, service_mask: V4, cluster_net: V4, cluster_mask: V4, uplink: u32,
    vxlan: u32, host: u32, net: u32, host_mac: Mac, net_mac: Mac,
]);

impl NodeConfig {
    /// Whether an address lies in the Service range.
    #[inline(always)]
    pub const fn is_service(&self, addr: V4) -> bool {
        self.service_mask.raw() != 0 && addr.raw() & self.service_mask.raw() == self.service_net.raw()
    }

    /// Whether an address lies in the range of the cluster's pods.
    #[inline(always)]
    pub const fn is_cluster(&self, addr: V4) -> bool {
        self.cluster_mask.raw() != 0 && addr.raw() & self.cluster_mask.raw() == self.cluster_net.raw()
    }
}

const fn _assert_plain<T: Plain>() {}
const _: () = _assert_plain::<NodeConfig>();
