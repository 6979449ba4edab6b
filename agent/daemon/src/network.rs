//! Brings up the node's own devices and opens the data path on them.

use std::{
    io,
    path::{Path, PathBuf},
};

use skep_datapath::{Datapath, DatapathConfig, MapSizes, NodeSettings};
use skep_model::MacAddr;
use skep_routing::{
    Actual, HOST_LINK, NET_LINK, Netlink, NodeNetwork, RoutingError, TUNNEL_LINK, Uplink, plan,
};

use crate::{facts::OwnNode, options::Options};

/// Type of a cgroup2 file system (statfs(2)).
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// The node's devices, as programs are loaded with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeDevices {
    /// Where the underlay is.
    pub(crate) uplink: Uplink,
    /// Index of the tunnel device.
    pub(crate) tunnel: u32,
    /// Index and address of the stack's side of the node-side pair.
    pub(crate) host: (u32, MacAddr),
    /// Index and address of the programs' side of it.
    pub(crate) net: (u32, MacAddr),
}

/// Creates and configures the devices, and leaves the routes that are there alone.
pub(crate) async fn bring_up(
    netlink: &Netlink,
    own: OwnNode,
    options: &Options,
) -> Result<(NodeNetwork, NodeDevices), RoutingError> {
    let uplink = netlink.uplink(own.node_ip.into()).await?;
    let network = NodeNetwork {
        node_ip: own.node_ip,
        gateway: own.gateway().unwrap_or(own.range.network()),
        service_cidr: options.service_cidr,
        cluster_cidr: options.cluster_cidr,
        uplink_mtu: uplink.mtu,
    };
    let actual = netlink.actual().await?;
    let links_only = Actual { links: actual.links, addresses: actual.addresses, ..Actual::default() };
    for command in plan(&network.links(), &links_only) {
        netlink.execute(&command).await?;
    }
    let devices = devices(netlink, uplink).await?;
    Ok((network, devices))
}

/// The devices as they are now.
pub(crate) async fn devices(netlink: &Netlink, uplink: Uplink) -> Result<NodeDevices, RoutingError> {
    let links = netlink.links().await?;
    let find = |name: &str| {
        let link = links.get(name).ok_or_else(|| RoutingError::NoDevice(name.into()))?;
        Ok((link.index, link.mac))
    };
    Ok(NodeDevices { uplink, tunnel: find(TUNNEL_LINK)?.0, host: find(HOST_LINK)?, net: find(NET_LINK)? })
}

/// Opens the data path and attaches what belongs to the node itself.
pub(crate) fn open_datapath(
    network: &NodeNetwork,
    devices: &NodeDevices,
    options: &Options,
) -> anyhow::Result<Datapath> {
    let node = NodeSettings {
        node_ip: network.node_ip,
        gateway: network.gateway,
        service_cidr: network.service_cidr,
        cluster_cidr: network.cluster_cidr,
        uplink_ifindex: devices.uplink.index,
        vxlan_ifindex: devices.tunnel,
        host_ifindex: devices.host.0,
        host_mac: devices.host.1,
        net_ifindex: devices.net.0,
        net_mac: devices.net.1,
    };
    let datapath = Datapath::open(DatapathConfig {
        pin_root: options.pin_root.clone(),
        object_dir: options.bpf_objects.clone(),
        node,
        sizes: MapSizes::for_this_machine(),
        force_clsact: options.force_clsact,
    })?;
    datapath.attach_overlay(devices.tunnel)?;
    datapath.attach_host(devices.net.0)?;
    datapath.attach_sock(&cgroup2(&options.cgroup_root)?)?;
    Ok(datapath)
}

/// The cgroup2 root below `root`: `root` itself, or `unified` where version 1 still holds the controllers.
fn cgroup2(root: &Path) -> io::Result<PathBuf> {
    let candidates = [root.join("unified"), root.to_path_buf()];
    let is_cgroup2 = |path: &PathBuf| {
        nix::sys::statfs::statfs(path).is_ok_and(|fs| fs.filesystem_type().0 == CGROUP2_MAGIC)
    };
    candidates.into_iter().find(is_cgroup2).ok_or_else(|| {
        let reason = format!("no cgroup2 file system at {} or below it: check --cgroup-root", root.display());
        io::Error::new(io::ErrorKind::NotFound, reason)
    })
}
