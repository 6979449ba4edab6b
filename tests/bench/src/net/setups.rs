//! The four setups, in namespaces that vanish with the value.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use skep_abi::DropReason;
use skep_datapath::{Limits, limits};
use skep_test_programs::{
    Attach, Cluster,
    netns::{Netns, sh},
};

use super::Path;

const NODES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 89, 0, 11), Ipv4Addr::new(10, 89, 0, 12)];
const PODS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 244, 1, 5), Ipv4Addr::new(10, 244, 2, 5)];
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// A node with a pod, without anything of ours.
struct PlainNode {
    node: Netns,
    pod: Netns,
}

/// The setups.
pub(crate) struct Setups {
    ours: Cluster,
    vxlan: [PlainNode; 2],
    limit: [PlainNode; 2],
    // Programs are attached as long as these live.
    _programs: [Limits; 2],
}

impl Setups {
    /// Makes them all.
    pub(crate) fn new() -> Result<Self> {
        let ours = Cluster::new(1, Attach::Best)?;
        let vxlan = plain_nodes("vx", 1450)?;
        for side in 0..2 {
            kernel_vxlan(&vxlan, side)?;
        }
        let limit = plain_nodes("lim", 1500)?;
        let programs = [redirect_only(&limit, 0)?, redirect_only(&limit, 1)?];
        Ok(Self { ours, vxlan, limit, _programs: programs })
    }

    /// Ours, the kernel's VXLAN, the limit, the bare link.
    pub(crate) fn paths(&self) -> [Path<'_>; 4] {
        let (client, server) = (&self.ours.nodes[0], &self.ours.nodes[1]);
        [
            Path { client: &client.pods[0].netns, server: &server.pods[0].netns, address: server.pods[0].ip },
            Path { client: &self.vxlan[0].pod, server: &self.vxlan[1].pod, address: PODS[1] },
            Path { client: &self.limit[0].pod, server: &self.limit[1].pod, address: PODS[1] },
            Path { client: &self.vxlan[0].node, server: &self.vxlan[1].node, address: NODES[1] },
        ]
    }
}

impl Setups {
    /// Fails when our programs dropped anything but what is no IPv4: the numbers would not mean what they say.
    pub(crate) fn check_no_drops(&self) -> Result<()> {
        for node in &self.ours.nodes {
            for row in node.datapath().counters()? {
                let noise = matches!(row.reason, None | Some(DropReason::UnsupportedProtocol));
                ensure!(noise, "{} packets were dropped at {}: {:?}", row.packets, row.hook, row.reason);
            }
        }
        Ok(())
    }
}

/// Two nodes on one link with a pod each; the pod's gateway is an address that the node answers for.
fn plain_nodes(label: &str, mtu: u32) -> Result<[PlainNode; 2]> {
    let make = |side: usize| -> Result<PlainNode> {
        let node = Netns::new(&format!("{label}{side}"))?;
        let pod = Netns::new(&format!("{label}{side}p"))?;
        sh(&format!(
            "ip link add pod netns {} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}",
            node.name(),
            pod.name()
        ))?;
        node.sh(&format!(
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.pod.proxy_arp=1
             ip link set pod up; ip route add {}/32 dev pod",
            PODS[side]
        ))?;
        pod.sh(&format!(
            "ip addr add {}/32 dev eth0; ip link set eth0 up
             ip route add {GATEWAY} dev eth0 scope link; ip route add default via {GATEWAY}
             ip neigh add {GATEWAY} lladdr {} dev eth0 nud permanent",
            PODS[side],
            node.mac("pod")?
        ))?;
        Ok(PlainNode { node, pod })
    };
    let nodes = [make(0)?, make(1)?];
    sh(&format!(
        "ip link add eth0 netns {} type veth peer name eth0 netns {}",
        nodes[0].node.name(),
        nodes[1].node.name()
    ))?;
    for (side, plain) in nodes.iter().enumerate() {
        plain.node.sh(&format!("ip addr add {}/24 dev eth0; ip link set eth0 up", NODES[side]))?;
    }
    Ok(nodes)
}

/// The kernel's VXLAN device and a route to the other node's pod through it.
fn kernel_vxlan(nodes: &[PlainNode; 2], side: usize) -> Result<()> {
    let other = 1 - side;
    let mac = |side: usize| format!("02:00:00:00:09:0{side}");
    nodes[side].node.sh(&format!(
        "ip link add vx0 address {} type vxlan id 1 local {} remote {} dstport 8472 nolearning
         ip link set vx0 mtu 1450 up
         ip route add {}/32 via 10.244.{}.0 dev vx0 onlink
         ip neigh add 10.244.{}.0 lladdr {} dev vx0 nud permanent",
        mac(side),
        NODES[side],
        NODES[other],
        PODS[other],
        other + 1,
        other + 1,
        mac(other),
    ))?;
    Ok(())
}

/// Programs that do nothing but redirect, and the route that their helper follows.
fn redirect_only(nodes: &[PlainNode; 2], side: usize) -> Result<Limits> {
    let other = 1 - side;
    let node = &nodes[side].node;
    node.sh(&format!("ip route add {}/32 via {} dev eth0", PODS[other], NODES[other]))?;
    let (uplink, pod) = (node.ifindex("eth0")?, node.ifindex("pod")?);
    node.within(|| {
        let programs = Limits::open(None, uplink, pod)?;
        programs.attach(limits::FROM_POD, pod)?;
        programs.attach(limits::FROM_UPLINK, uplink)?;
        Ok(programs)
    })
}
