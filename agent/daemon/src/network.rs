//! Brings up the node's own devices and opens the data path on them.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use skep_datapath::{Datapath, DatapathConfig, FamilySettings, MapSizes, NodeSettings, config::NAT_PORTS};
use skep_model::{Address, Cidr, MacAddr, Ranges};
use skep_routing::{
    Actual, FamilyNetwork, HOST_LINK, NET_LINK, Netlink, NodeNetwork, RoutingError, TUNNEL_LINK, Uplink, plan,
};

use crate::{
    facts::{OwnFamily, OwnNode},
    options::{Options, balancing::Mode},
};

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
    let Some(tunnel_end) = own.addresses().next() else {
        return Err(RoutingError::NoUplink(IpAddr::from([0; 4])));
    };
    let uplink = netlink.uplink(tunnel_end).await?;
    let mut network = network(own, options.cluster_cidr, options.service_cidr, uplink.clone());
    let actual = netlink.actual().await?;
    let links_only = Actual { links: actual.links, addresses: actual.addresses, ..Actual::default() };
    for command in plan(&network.links(), &links_only) {
        netlink.execute(&command).await?;
    }
    let devices = devices(netlink, uplink).await?;
    network.net_mac = devices.net.1;
    Ok((network, devices))
}

/// The node's network in the families that it and the ranges have.
pub(crate) fn network(own: OwnNode, cluster: Ranges, service: Ranges, uplink: Uplink) -> NodeNetwork {
    let v4 = own.v4.zip(cluster.v4().zip(service.v4()));
    let v6 = own.v6.zip(cluster.v6().zip(service.v6()));
    NodeNetwork {
        v4: v4.map(|(own, (cluster, service))| family(own, cluster, service)),
        v6: v6.map(|(own, (cluster, service))| family(own, cluster, service)),
        uplink,
        net_mac: MacAddr::default(),
    }
}

fn family<A: Address>(own: OwnFamily<A>, cluster_cidr: Cidr<A>, service_cidr: Cidr<A>) -> FamilyNetwork<A> {
    FamilyNetwork { node_ip: own.node_ip, gateway: own.gateway(), service_cidr, cluster_cidr }
}

fn settings<A: Address>(network: &FamilyNetwork<A>) -> FamilySettings<A> {
    FamilySettings {
        node_ip: network.node_ip,
        gateway: network.gateway,
        service_cidr: network.service_cidr,
        cluster_cidr: network.cluster_cidr,
    }
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
        v4: network.v4.as_ref().map(settings),
        v6: network.v6.as_ref().map(settings),
        uplink_ifindex: devices.uplink.index,
        vxlan_ifindex: devices.tunnel,
        host_ifindex: devices.host.0,
        host_mac: devices.host.1,
        net_ifindex: devices.net.0,
        net_mac: devices.net.1,
        node_ports: (options.balancing.node_ports.first, options.balancing.node_ports.last),
        nat_ports: NAT_PORTS,
        dsr: options.balancing.lb_mode == Mode::Dsr,
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
