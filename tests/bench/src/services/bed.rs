//! Where it is measured: a node with a client pod and a server pod, and a client beyond its uplink, in namespaces.
//!
//! The kernel's beds forward with the plain stack, with or without a rule set; ours has the data path as the agent
//! sets it up. All have the same addresses and the same number of devices on the way.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use skep_test_programs::netns::{Netns, sh};

use super::{
    rules::{self, Plan},
    worker::Worker,
};

/// The range of pods.
pub(super) const PODS: &str = "10.244.0.0/16";
/// The node's address towards the outside.
pub(super) const NODE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
/// The client beyond the uplink.
pub(super) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 2);
/// The measured Service.
pub(super) const FRONTEND: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 50), 80);
/// Its node port.
pub(super) const NODE_PORT: u16 = 30_080;
const CLIENT_POD: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 5);
const SERVER_POD: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 6);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);
const BACKEND_PORTS: [u16; 2] = [8080, 8081];
/// A rule set that takes longer to load is left out.
const LOADING: Duration = Duration::from_secs(45);

/// The measured Service's backends.
pub(super) fn backends() -> Vec<SocketAddrV4> {
    BACKEND_PORTS.map(|port| SocketAddrV4::new(SERVER_POD, port)).to_vec()
}

/// What is installed at a size.
fn plan(services: u32) -> Plan {
    let (frontend, node_port) = (FRONTEND, NODE_PORT);
    Plan { services, frontend, node_port, node: NODE, backends: backends(), pods: PODS }
}

/// Who balances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    /// Nobody.
    None,
    /// kube-proxy's nftables mode.
    Nftables,
    /// kube-proxy's iptables mode.
    Iptables,
}

/// A node whose own stack forwards.
pub(super) struct Kernel {
    node: Netns,
    pod: Netns,
    outside: Netns,
    server: Worker,
    _server: Netns,
    rules: Rules,
}

impl Kernel {
    /// Makes the namespaces and starts the server.
    pub(super) fn new(rules: Rules) -> Result<Self> {
        let label = match rules {
            Rules::None => "a",
            Rules::Nftables => "nft",
            Rules::Iptables => "ipt",
        };
        let node = Netns::new(&format!("{label}n"))?;
        node.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0")?;
        let pod = add_pod(&node, label, "client", CLIENT_POD)?;
        let server_pod = add_pod(&node, label, "server", SERVER_POD)?;
        let outside = add_outside(&node, label)?;
        let mut server = Worker::start(&server_pod, None)?;
        server.serve(&backends().into_iter().map(SocketAddr::V4).collect::<Vec<_>>())?;
        Ok(Self { node, pod, outside, server, _server: server_pod, rules })
    }

    /// A client in the pod.
    pub(super) fn pod_client(&self) -> Result<Worker> {
        Worker::start(&self.pod, None)
    }

    /// A client beyond the uplink.
    pub(super) fn outside_client(&self) -> Result<Worker> {
        Worker::start(&self.outside, None)
    }

    /// The server.
    pub(super) fn server(&self) -> &Worker {
        &self.server
    }

    /// Installs so many Services; false when that takes too long.
    pub(super) fn install(&self, services: u32, folder: &Path) -> Result<bool> {
        let (text, program, arguments) = match self.rules {
            Rules::None => return Ok(true),
            Rules::Nftables => (rules::nftables(&plan(services)), "nft", "-f"),
            Rules::Iptables => (rules::iptables(&plan(services)), "iptables-restore", ""),
        };
        let path = folder.join(program);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        let limit = LOADING.as_secs();
        let outcome = self.node.sh(&format!(
            "status=0; timeout {limit} {program} {arguments} {} || status=$?
             if [ $status = 124 ]; then echo late; else exit $status; fi",
            path.display()
        ))?;
        Ok(!outcome.contains("late"))
    }
}

fn add_pod(node: &Netns, label: &str, name: &str, ip: Ipv4Addr) -> Result<Netns> {
    let pod = Netns::new(&format!("{label}{name}"))?;
    sh(&format!("ip link add {name} netns {} type veth peer name eth0 netns {}", node.name(), pod.name()))?;
    node.sh(&format!(
        "ip addr add {GATEWAY}/32 dev {name}; ip link set {name} up; ip route add {ip}/32 dev {name}"
    ))?;
    pod.sh(&format!(
        "ip addr add {ip}/32 dev eth0; ip link set eth0 up
         ip route add {GATEWAY} dev eth0 scope link; ip route add default via {GATEWAY}"
    ))?;
    Ok(pod)
}

/// A client's namespace on a link of its own to the node; pods are routed through the node.
pub(super) fn add_outside(node: &Netns, label: &str) -> Result<Netns> {
    let outside = Netns::new(&format!("{label}o"))?;
    sh(&format!("ip link add eth1 netns {} type veth peer name eth0 netns {}", node.name(), outside.name()))?;
    node.sh(&format!("ip addr add {NODE}/24 dev eth1; ip link set eth1 up"))?;
    outside.sh(&format!(
        "ip addr add {OUTSIDE}/24 dev eth0; ip link set eth0 up; ip route add default via {NODE}"
    ))?;
    Ok(outside)
}

/// Removes what benchmarks left whose process is gone.
pub(crate) fn remove_stale() -> Result<()> {
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    for name in names.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
        let Some(pid) = owner(&name) else { continue };
        if !Path::new(&format!("/proc/{pid}")).exists() {
            sh(&format!("ip netns del {name}"))?;
        }
    }
    Ok(())
}

/// The process in the name of a test's namespace.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix("skt-")?.split('-').next()?.parse().ok()
}

/// Fails when the kernel tracks too few connections for what is asked of it.
pub(super) fn check_conntrack() -> Result<()> {
    let path = "/proc/sys/net/netfilter/nf_conntrack_max";
    // Absent until the first rule that needs it.
    let Ok(text) = fs::read_to_string(path) else { return Ok(()) };
    let most: u64 = text.trim().parse()?;
    ensure!(most >= 131_072, "{path} is {most}: kube-proxy would raise it to at least 131072");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_in_the_name() {
        assert_eq!(owner("skt-123-4-node1"), Some(123));
        assert_eq!(owner("skep-node-1"), None);
        assert_eq!(owner("skt-x"), None);
    }
}
