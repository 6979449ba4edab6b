//! What the caller of [`crate::Datapath::open`] fills in.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use skep_abi::{
    FamilyConfig, NodeConfig, NodeMode, V4, V6,
    maps::{self, MapSpec},
};
use skep_model::{Address, Cidr, IpFamily, MacAddr};

use crate::codec::Family;

/// Everything that [`crate::Datapath::open`] needs.
#[derive(Clone, Debug)]
pub struct DatapathConfig {
    /// Folder on a bpffs that holds our pins; created when absent. `/sys/fs/bpf/skep` on a node.
    pub pin_root: PathBuf,
    /// Folder of compiled objects to use instead of the embedded ones.
    pub object_dir: Option<PathBuf>,
    /// Facts about the node that the programs are compiled against at load time.
    pub node: NodeSettings,
    /// How large the maps may become.
    pub sizes: MapSizes,
    /// Attach with clsact even where the kernel has TCX.
    pub force_clsact: bool,
}

/// Facts about the node. A change needs a new [`crate::Datapath::open`], which replaces the programs in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    /// Addresses and ranges of IPv4; `None` where the cluster has none.
    pub v4: Option<FamilySettings<Ipv4Addr>>,
    /// Addresses and ranges of IPv6; `None` where the cluster has none, which keeps the maps of the family tiny.
    pub v6: Option<FamilySettings<Ipv6Addr>>,
    /// Interface index of the uplink.
    pub uplink_ifindex: u32,
    /// Interface index of `skep_vxlan`.
    pub vxlan_ifindex: u32,
    /// Interface index of `skep_host`.
    pub host_ifindex: u32,
    /// Link-layer address of `skep_host`.
    pub host_mac: MacAddr,
    /// Interface index of `skep_net`.
    pub net_ifindex: u32,
    /// Link-layer address of `skep_net`.
    pub net_mac: MacAddr,
    /// First and last port that Services may have on nodes.
    pub node_ports: (u16, u16),
    /// First and last port that translated clients get on the gateway's address.
    pub nat_ports: (u16, u16),
    /// Outside clients are answered by the backend's node itself (direct server return).
    pub dsr: bool,
}

/// Node ports of a cluster that says nothing else.
pub const NODE_PORTS: (u16, u16) = (30_000, 32_767);
/// Ports of translated clients on a node that says nothing else.
pub const NAT_PORTS: (u16, u16) = (1024, 65_535);

/// What a node is told about one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilySettings<A> {
    /// Underlay address.
    pub node_ip: A,
    /// Gateway address of the node's pods: first of its pod range.
    pub gateway: A,
    /// The Service range.
    pub service_cidr: Cidr<A>,
    /// The range of all pods of the cluster.
    pub cluster_cidr: Cidr<A>,
}

impl<A: Address + Into<IpAddr>> FamilySettings<A> {
    fn to_abi<B: Family>(self) -> Option<FamilyConfig<B>> {
        Some(FamilyConfig {
            node_ip: B::from_ip(self.node_ip.into())?,
            gateway: B::from_ip(self.gateway.into())?,
            service_net: B::from_ip(self.service_cidr.network().into())?,
            service_mask: mask(self.service_cidr.length()),
            cluster_net: B::from_ip(self.cluster_cidr.network().into())?,
            cluster_mask: mask(self.cluster_cidr.length()),
        })
    }
}

impl NodeSettings {
    /// The bytes that programs read.
    #[must_use]
    pub fn to_abi(&self) -> NodeConfig {
        let mut mode = NodeMode::XDP_TX;
        if self.dsr {
            mode = mode.with(NodeMode::DSR);
        }
        if self.v4.is_none() {
            mode = mode.with(NodeMode::UNDERLAY6);
        }
        NodeConfig {
            v4: self.v4.and_then(|v4| v4.to_abi::<V4>()).unwrap_or(FamilyConfig::EMPTY4),
            v6: self.v6.and_then(|v6| v6.to_abi::<V6>()).unwrap_or(FamilyConfig::EMPTY6),
            uplink: self.uplink_ifindex,
            vxlan: self.vxlan_ifindex,
            host: self.host_ifindex,
            net: self.net_ifindex,
            host_mac: self.host_mac.0,
            net_mac: self.net_mac.0,
            node_port_first: self.node_ports.0,
            node_port_last: self.node_ports.1,
            nat_port_first: self.nat_ports.0,
            nat_port_last: self.nat_ports.1,
            mode,
        }
    }

    /// The families that the cluster has.
    #[must_use]
    pub fn families(&self) -> Families {
        Families { v4: self.v4.is_some(), v6: self.v6.is_some() }
    }
}

/// Which address families a node carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Families {
    fn has(self, family: IpFamily) -> bool {
        match family {
            IpFamily::V4 => self.v4,
            IpFamily::V6 => self.v6,
        }
    }
}

fn mask<A: Family>(length: u8) -> A {
    let mut words = [0u32; 4];
    for (at, word) in words.iter_mut().enumerate() {
        let bits = u32::from(length).saturating_sub(at as u32 * 32).min(32);
        *word = u32::MAX.checked_shl(32 - bits).unwrap_or(0).to_be();
    }
    A::from_words(words)
}

/// Sizes of the maps that grow with load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSizes {
    /// Conntrack entries; a translated flow takes two.
    pub conntrack: u32,
    /// Translated sockets.
    pub sockets: u32,
}

impl MapSizes {
    /// Sizes for a machine with this much memory: conntrack may take half a thousandth of it, for its maps are allocated
    /// whole, used or not. 24 GiB give 131,072 entries, as many as kube-proxy has the kernel track at least.
    #[must_use]
    pub fn for_memory(bytes: u64) -> Self {
        let entries = (bytes / 2000 / 96).clamp(16_384, 1 << 22);
        let conntrack = 1 << u32::try_from(entries).unwrap_or(1 << 22).ilog2();
        Self { conntrack, sockets: (conntrack / 4).max(8192) }
    }

    /// Sizes for this machine, from `/proc/meminfo`; the smallest when that cannot be read.
    #[must_use]
    pub fn for_this_machine() -> Self {
        Self::for_memory(total_memory(Path::new("/proc/meminfo")).unwrap_or(0))
    }

    /// Entries that a map is created with: as few as possible for a family that the node does not carry.
    #[must_use]
    pub fn entries(&self, spec: &MapSpec, families: Families) -> u32 {
        if family_of(spec).is_some_and(|family| !families.has(family)) {
            return maps::UNUSED_FAMILY_ENTRIES;
        }
        match spec.name.trim_end_matches(['4', '6']) {
            "CONNTRACK" => self.conntrack,
            "SOCKETS" => self.sockets,
            "AFFINITY" => (self.conntrack / 4).clamp(8192, maps::AFFINITY.entries),
            _ => spec.entries,
        }
    }
}

/// The family whose addresses a map holds; maps of both have no number at the end of their name.
fn family_of(spec: &MapSpec) -> Option<IpFamily> {
    match spec.name.as_bytes().last() {
        Some(b'4') => Some(IpFamily::V4),
        Some(b'6') => Some(IpFamily::V6),
        _ => None,
    }
}

fn total_memory(meminfo: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(meminfo).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_follow_prefix_lengths_in_both_families() {
        assert_eq!(mask::<V4>(16), V4::new([255, 255, 0, 0]));
        assert_eq!(mask::<V4>(0), V4::new([0; 4]));
        assert_eq!(mask::<V4>(32), V4::new([255; 4]));
        assert_eq!(mask::<V6>(128), V6::new([255; 16]));
        let mut octets = [0; 16];
        octets[..7].fill(0xff);
        assert_eq!(mask::<V6>(56), V6::new(octets));
    }

    #[test]
    fn a_family_that_the_node_does_not_carry_costs_next_to_nothing() {
        let sizes = MapSizes { conntrack: 16_384, sockets: 8192 };
        let only4 = Families { v4: true, v6: false };
        for spec in maps::ALL {
            let unused = sizes.entries(spec, only4) == maps::UNUSED_FAMILY_ENTRIES;
            assert_eq!(unused, spec.name.ends_with('6'), "{}", spec.name);
        }
        let both = Families { v4: true, v6: true };
        assert_eq!(sizes.entries(&maps::CONNTRACK6, both), 16_384);
    }

    #[test]
    fn conntrack_grows_with_memory_between_bounds() {
        assert_eq!(MapSizes::for_memory(0).conntrack, 16_384);
        assert_eq!(MapSizes::for_memory(u64::MAX).conntrack, 1 << 22);
        assert_eq!(MapSizes::for_memory(24 << 30).conntrack, 131_072);
    }
}
