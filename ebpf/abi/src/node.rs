//! Read-only configuration of a node: a global that programs are loaded with.

use crate::{
    Plain,
    addr::{Addr, Mac, V4, V6},
    layout,
};

/// Name of the global in every object that uses it.
pub const NODE_CONFIG: &str = "NODE";

/// What programs need to know about their node. Zero interface indexes mean "absent".
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeConfig {
    /// IPv4; all zero where the cluster has none.
    pub v4: FamilyConfig<V4>,
    /// IPv6; all zero where the cluster has none.
    pub v6: FamilyConfig<V6>,
    /// Interface index of the uplink that the default route uses.
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
    /// First node port, host order; zero: no node ports.
    pub node_port_first: u16,
    /// Last node port, host order.
    pub node_port_last: u16,
    /// First port that source translation may use, host order.
    pub nat_port_first: u16,
    /// Last port that source translation may use, host order.
    pub nat_port_last: u16,
    /// Choices that hold for the whole node.
    pub mode: NodeMode,
}

layout!(NodeConfig, size = 160, fields = [
    v4: FamilyConfig<V4>, v6: FamilyConfig<V6>, uplink: u32, vxlan: u32, host: u32, net: u32, host_mac: Mac,
    net_mac: Mac, node_port_first: u16, node_port_last: u16, nat_port_first: u16, nat_port_last: u16, mode: NodeMode,
]);

impl NodeConfig {
    /// Everything zero.
    pub const EMPTY: Self = Self {
        v4: FamilyConfig::EMPTY4,
        v6: FamilyConfig::EMPTY6,
        uplink: 0,
        vxlan: 0,
        host: 0,
        net: 0,
        host_mac: [0; 6],
        net_mac: [0; 6],
        node_port_first: 0,
        node_port_last: 0,
        nat_port_first: 0,
        nat_port_last: 0,
        mode: NodeMode(0),
    };
}

/// Addresses of one family.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FamilyConfig<A> {
    /// Underlay address.
    pub node_ip: A,
    /// Gateway address of the node's pods; also what backends of other nodes see of translated outside clients.
    pub gateway: A,
    /// Network of the Service range.
    pub service_net: A,
    /// Mask of the Service range, network order; zero: no range.
    pub service_mask: A,
    /// Network of all pods of the cluster.
    pub cluster_net: A,
    /// Mask of all pods of the cluster, network order; zero: no range.
    pub cluster_mask: A,
}

// SAFETY: six addresses fill the struct; sizes asserted below.
unsafe impl<A: Addr> Plain for FamilyConfig<A> {}
const _: () = {
    assert!(size_of::<FamilyConfig<V4>>() == 24);
    assert!(size_of::<FamilyConfig<V6>>() == 96);
};

impl FamilyConfig<V4> {
    /// Everything zero.
    pub const EMPTY4: Self = {
        let zero = V4::from_raw(0);
        Self {
            node_ip: zero,
            gateway: zero,
            service_net: zero,
            service_mask: zero,
            cluster_net: zero,
            cluster_mask: zero,
        }
    };
}

impl FamilyConfig<V6> {
    /// Everything zero.
    pub const EMPTY6: Self = {
        let zero = V6::from_raw([0; 4]);
        Self {
            node_ip: zero,
            gateway: zero,
            service_net: zero,
            service_mask: zero,
            cluster_net: zero,
            cluster_mask: zero,
        }
    };
}

impl<A: Addr> FamilyConfig<A> {
    /// Whether an address lies in the Service range.
    #[inline(always)]
    pub fn is_service(&self, addr: A) -> bool {
        within(addr, &self.service_net, &self.service_mask)
    }

    /// Whether an address lies in the range of the cluster's pods.
    #[inline(always)]
    pub fn is_cluster(&self, addr: A) -> bool {
        within(addr, &self.cluster_net, &self.cluster_mask)
    }
}

/// Whether an address lies in a network. An empty mask holds nothing.
#[inline(always)]
pub fn within<A: Addr>(addr: A, net: &A, mask: &A) -> bool {
    let (addr, net, mask) = (addr.words(), net.words(), mask.words());
    if mask[0] == 0 {
        return false;
    }
    let mut differ = (addr[0] & mask[0]) ^ net[0];
    if A::BITS == 128 {
        differ |= (addr[1] & mask[1]) ^ net[1];
        differ |= (addr[2] & mask[2]) ^ net[2];
        differ |= (addr[3] & mask[3]) ^ net[3];
    }
    differ == 0
}

/// Choices that hold for the whole node; combinable bits.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeMode(pub u32);

// SAFETY: transparent over u32.
unsafe impl Plain for NodeMode {}

impl NodeMode {
    /// Backends of other nodes answer outside clients directly; otherwise this node translates both ends.
    pub const DSR: Self = Self(1);
    /// Tunnels run over IPv6.
    pub const UNDERLAY6: Self = Self(1 << 1);
    /// The XDP program sends packets out of the device they came from (`XDP_TX`) where the route says so.
    pub const XDP_TX: Self = Self(1 << 2);

    /// Whether any of the given bits is set.
    #[inline(always)]
    pub const fn any(self, bits: Self) -> bool {
        self.0 & bits.0 != 0
    }

    /// Both sets.
    #[inline(always)]
    pub const fn with(self, bits: Self) -> Self {
        Self(self.0 | bits.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_their_addresses_in_both_families_and_empty_ones_nothing() {
        let v4 = FamilyConfig {
            service_net: V4::new([10, 96, 0, 0]),
            service_mask: V4::new([255, 255, 0, 0]),
            ..FamilyConfig::EMPTY4
        };
        assert!(v4.is_service(V4::new([10, 96, 3, 4])) && !v4.is_service(V4::new([10, 97, 0, 1])));
        assert!(!v4.is_cluster(V4::default()));
        let (mut net, mut mask) = ([0; 16], [0; 16]);
        (net[0], net[13]) = (0xfd, 9);
        mask[..14].fill(0xff);
        let v6 =
            FamilyConfig { cluster_net: V6::new(net), cluster_mask: V6::new(mask), ..FamilyConfig::EMPTY6 };
        net[15] = 7;
        assert!(v6.is_cluster(V6::new(net)) && !v6.is_service(V6::new(net)));
        net[13] = 8;
        assert!(!v6.is_cluster(V6::new(net)));
    }
}
