//! What the caller of [`crate::Datapath::open`] fills in.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use skep_abi::{
    NodeConfig,
    addr::V4,
    maps::{self, MapSpec},
};
use skep_model::{Cidr4, MacAddr};

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
    /// Underlay address.
    pub node_ip: Ipv4Addr,
    /// Gateway address of the node's pods: first of its pod range.
    pub gateway: Ipv4Addr,
    /// The Service range.
    pub service_cidr: Cidr4,
    /// The range of all pods of the cluster.
    pub cluster_cidr: Cidr4,
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
}

impl NodeSettings {
    /// The bytes that programs read.
    #[must_use]
    pub fn to_abi(&self) -> NodeConfig {
        let v4 = |address: Ipv4Addr| V4::new(address.octets());
        NodeConfig {
            node_ip: v4(self.node_ip),
            gateway: v4(self.gateway),
            service_net: v4(self.service_cidr.network()),
            service_mask: mask(self.service_cidr.length()),
            cluster_net: v4(self.cluster_cidr.network()),
            cluster_mask: mask(self.cluster_cidr.length()),
            uplink: self.uplink_ifindex,
            vxlan: self.vxlan_ifindex,
            host: self.host_ifindex,
            net: self.net_ifindex,
            host_mac: self.host_mac.0,
            net_mac: self.net_mac.0,
        }
    }
}

fn mask(length: u8) -> V4 {
    let bits = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
    V4::new(bits.to_be_bytes())
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
    /// Sizes for a machine with this much memory: conntrack may take a thousandth of it, for its maps are allocated
    /// whole, used or not. 24 GiB give 262,144 entries.
    #[must_use]
    pub fn for_memory(bytes: u64) -> Self {
        let entries = (bytes / 1000 / 96).clamp(16_384, 1 << 22);
        let conntrack = 1 << u32::try_from(entries).unwrap_or(1 << 22).ilog2();
        Self { conntrack, sockets: (conntrack / 4).max(8192) }
    }

    /// Sizes for this machine, from `/proc/meminfo`; the smallest when that cannot be read.
    #[must_use]
    pub fn for_this_machine() -> Self {
        Self::for_memory(total_memory(Path::new("/proc/meminfo")).unwrap_or(0))
    }

    /// Entries that a map is created with.
    #[must_use]
    pub fn entries(&self, spec: &MapSpec) -> u32 {
        match spec.name {
            name if name == maps::CONNTRACK4.name => self.conntrack,
            name if name == maps::SOCKETS4.name => self.sockets,
            _ => spec.entries,
        }
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
    fn masks_follow_prefix_lengths() {
        assert_eq!(mask(16), V4::new([255, 255, 0, 0]));
        assert_eq!(mask(0), V4::new([0; 4]));
        assert_eq!(mask(32), V4::new([255; 4]));
    }

    #[test]
    fn conntrack_grows_with_memory_between_bounds() {
        assert_eq!(MapSizes::for_memory(0).conntrack, 16_384);
        assert_eq!(MapSizes::for_memory(u64::MAX).conntrack, 1 << 22);
        assert_eq!(MapSizes::for_memory(24 << 30).conntrack, 262_144);
    }
}
