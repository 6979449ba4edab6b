//! Two nodes with pods, in namespaces: the data path as the agent would set it up.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use anyhow::Context;
use skep_datapath::{
    BackendAddress, BackendSlot, Datapath, DatapathConfig, Endpoint, FamilySettings, Frontend, FrontendKey,
    MapSizes, NodeSettings, Peer, PeerKind,
    config::{NAT_PORTS, NODE_PORTS},
};
use skep_model::{FrontendAddress, IpCidr, Port, Protocol};

use crate::{
    bench::{BpfFs, require_root},
    netns::{Netns, Offload, sh},
};

/// MTU of pods: the uplink's 1500 less what VXLAN adds.
pub const POD_MTU: u32 = 1450;

/// A cgroup2 folder that vanishes with its value; its processes are killed first.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes one below the cgroup2 mount.
    ///
    /// # Errors
    /// Without root or a cgroup2 mount.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .into_iter()
            .map(Path::new)
            .find(|root| root.join("cgroup.controllers").exists())
            .context("no cgroup2 is mounted")?;
        let path = root.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Ok(mut kill) = fs::OpenOptions::new().write(true).open(self.path.join("cgroup.kill")) {
            let _best_effort = kill.write_all(b"1");
        }
        for _ in 0..100 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// A pod.
#[derive(Debug)]
pub struct Pod {
    /// Its namespace.
    pub netns: Netns,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Name of the host side of its veth.
    pub device: String,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its namespace.
    pub netns: Netns,
    /// Its number, from 1.
    pub number: u8,
    /// Its underlay address.
    pub ip: Ipv4Addr,
    /// The cgroup that its socket programs are attached to.
    pub cgroup: Cgroup,
    /// Its pods.
    pub pods: Vec<Pod>,
    datapath: Option<Datapath>,
    balancing: Option<Balancing>,
    pins: BpfFs,
}

/// Which attach kind a cluster uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// The kernel's best.
    Best,
    /// clsact even where TCX exists.
    Clsact,
}

/// Two nodes on one link.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// A client outside the cluster, on the nodes' network: 10.89.0.200, fd00:89::200.
    pub outside: Option<Netns>,
    lan: Option<Netns>,
    attach: Attach,
}

/// How nodes answer clients outside the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balancing {
    /// Backends' nodes answer directly.
    pub dsr: bool,
    /// Packets are handled before the stack where possible.
    pub xdp: bool,
}

impl Cluster {
    /// Two nodes with `pods` pods each, everything attached.
    ///
    /// # Errors
    /// Without root or compiled objects, with what to do about it.
    pub fn new(pods: u8, attach: Attach) -> anyhow::Result<Self> {
        require_root()?;
        let mut cluster =
            Self { nodes: vec![Node::new(1)?, Node::new(2)?], outside: None, lan: None, attach };
        cluster.wire()?;
        for node in &mut cluster.nodes {
            node.devices()?;
        }
        for index in 0..cluster.nodes.len() {
            for pod in 0..pods {
                cluster.nodes[index].add_pod(5 + pod)?;
            }
            cluster.nodes[index].open(attach)?;
            cluster.nodes[index].fill(2)?;
        }
        Ok(cluster)
    }

    /// Two nodes of both families with one pod each, on a network with a client outside the cluster.
    ///
    /// # Errors
    /// As [`Cluster::new`].
    pub fn balanced(balancing: Balancing) -> anyhow::Result<Self> {
        require_root()?;
        let attach = Attach::Best;
        let nodes = vec![Node::new(1)?, Node::new(2)?];
        let (lan, outside) = (Netns::new("lan")?, Netns::new("outside")?);
        lan.sh("ip link add br0 type bridge; ip link set br0 up")?;
        let mut cluster = Self { nodes, outside: Some(outside), lan: Some(lan), attach };
        cluster.wire_lan()?;
        for node in &mut cluster.nodes {
            node.balancing = Some(balancing);
            node.devices()?;
            node.devices6()?;
        }
        for index in 0..cluster.nodes.len() {
            cluster.nodes[index].add_pod(5)?;
            cluster.nodes[index].add_pod6(5)?;
            cluster.nodes[index].open(attach)?;
            cluster.nodes[index].fill(2)?;
            cluster.nodes[index].fill6(2)?;
        }
        Ok(cluster)
    }

    fn wire_lan(&self) -> anyhow::Result<()> {
        let (Some(lan), Some(outside)) = (&self.lan, &self.outside) else { return Ok(()) };
        let hosts = [(&self.nodes[0].netns, 11), (&self.nodes[1].netns, 12), (outside, 200)];
        for (host, number) in hosts {
            sh(&format!(
                "ip link add eth0 netns {} type veth peer name port{number} netns {}",
                host.name(),
                lan.name()
            ))?;
            lan.sh(&format!("ip link set port{number} master br0 up"))?;
            lan.offload(&format!("port{number}"), Offload::GroOn)?;
            host.sh(&format!(
                "sysctl -qw net.ipv6.conf.eth0.accept_dad=0
                 ip addr add 10.89.0.{number}/24 dev eth0
                 ip addr add fd00:89::{number}/64 dev eth0 nodad
                 ip link set eth0 up"
            ))?;
            host.offload("eth0", Offload::TxChecksumOff)?;
        }
        Ok(())
    }

    /// Ends a node's agent and starts the next one: it adopts what is pinned.
    ///
    /// # Errors
    /// When the data path cannot be opened.
    pub fn restart_agent(&mut self, node: usize) -> anyhow::Result<()> {
        self.nodes[node].datapath = None;
        let attach = self.attach;
        self.nodes[node].open(attach)
    }

    /// Adds a Service to every node.
    ///
    /// # Errors
    /// When a map refuses.
    pub fn service(
        &self,
        id: u32,
        (vip, port, protocol): (Ipv4Addr, u16, Protocol),
        backends: &[(Ipv4Addr, u16)],
    ) -> anyhow::Result<()> {
        for node in &self.nodes {
            let tables = node.datapath().tables();
            for (slot, (ip, port)) in backends.iter().enumerate() {
                let key = BackendSlot { set: id, slot: u16::try_from(slot)? };
                tables.backends.update(&key, &BackendAddress { ip: (*ip).into(), port: *port })?;
            }
            let port = Port::new(port).context("port zero")?;
            let frontend = Frontend::new(id, u16::try_from(backends.len())?);
            let key = FrontendKey::inside(FrontendAddress { ip: vip.into(), port, protocol });
            tables.frontends.update(&key, &frontend)?;
        }
        Ok(())
    }

    fn wire(&self) -> anyhow::Result<()> {
        let (first, second) = (&self.nodes[0], &self.nodes[1]);
        sh(&format!(
            "ip link add eth0 netns {} type veth peer name eth0 netns {}",
            first.netns.name(),
            second.netns.name()
        ))?;
        for node in &self.nodes {
            node.netns.sh(&format!("ip addr add {}/24 dev eth0; ip link set eth0 up", node.ip))?;
        }
        Ok(())
    }
}

impl Node {
    fn new(number: u8) -> anyhow::Result<Self> {
        let netns = Netns::new(&format!("node{number}"))?;
        let cgroup = Cgroup::new(netns.name())?;
        netns.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0")?;
        Ok(Self {
            cgroup,
            netns,
            number,
            ip: Ipv4Addr::new(10, 89, 0, 10 + number),
            pods: Vec::new(),
            datapath: None,
            balancing: None,
            pins: BpfFs::mount()?,
        })
    }

    /// The node's data path.
    ///
    /// # Panics
    /// While the agent is being restarted.
    #[must_use]
    #[allow(clippy::expect_used, reason = "absent only inside restart_agent")]
    pub fn datapath(&self) -> &Datapath {
        self.datapath.as_ref().expect("open")
    }

    /// Where the node's data path is pinned.
    #[must_use]
    pub fn pins(&self) -> &Path {
        self.pins.path()
    }

    /// Fills the tables again, as an agent does that starts.
    ///
    /// # Errors
    /// When a map refuses.
    pub fn refill(&self) -> anyhow::Result<()> {
        self.fill(2)
    }

    /// Says that the tables are filled.
    ///
    /// # Errors
    /// When the kernel refuses a program.
    pub fn synced(&self) -> anyhow::Result<()> {
        self.netns.within(|| Ok(self.datapath().synced()?))
    }

    /// Gateway of the node's pods.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.number, 1)
    }

    fn devices(&self) -> anyhow::Result<()> {
        let (gateway, ip) = (self.gateway(), self.ip);
        self.netns.sh(&format!(
            "ip link add skep_vxlan type vxlan external dstport 8472 nolearning
             ip link set skep_vxlan mtu {POD_MTU} up
             ip link add skep_host mtu {POD_MTU} type veth peer name skep_net mtu {POD_MTU}
             ip link set skep_host up; ip link set skep_net up
             sysctl -qw net.ipv4.conf.skep_vxlan.forwarding=0 net.ipv4.conf.skep_host.forwarding=0
             sysctl -qw net.ipv4.conf.skep_net.forwarding=0
             ip addr add {gateway}/32 dev skep_host
             ip route add 10.96.0.0/16 dev skep_host src {gateway}
             ip route add 10.244.0.0/16 dev skep_host src {ip}"
        ))?;
        Ok(())
    }

    fn add_pod(&mut self, last: u8) -> anyhow::Result<()> {
        let pod = Netns::new(&format!("n{}p{last}", self.number))?;
        let ip = Ipv4Addr::new(10, 244, self.number, last);
        let (device, gateway) = (format!("pod{last}"), self.gateway());
        sh(&format!(
            "ip link add {device} netns {} mtu {POD_MTU} type veth peer name eth0 mtu {POD_MTU} netns {}",
            self.netns.name(),
            pod.name()
        ))?;
        pod.sh(&format!(
            "sysctl -qw net.ipv6.conf.all.disable_ipv6=1
             ip addr add {ip}/32 dev eth0; ip link set eth0 up
             ip route add {gateway} dev eth0 scope link; ip route add default via {gateway}"
        ))?;
        self.netns.sh(&format!(
            "sysctl -qw net.ipv6.conf.{device}.disable_ipv6=1 net.ipv4.conf.{device}.forwarding=0
             ip link set {device} up; ip route add {ip}/32 dev {device}"
        ))?;
        self.pods.push(Pod { netns: pod, ip, device });
        Ok(())
    }

    fn settings(&self) -> anyhow::Result<NodeSettings> {
        Ok(NodeSettings {
            v4: Some(FamilySettings {
                node_ip: self.ip,
                gateway: self.gateway(),
                service_cidr: "10.96.0.0/16".parse()?,
                cluster_cidr: "10.244.0.0/16".parse()?,
            }),
            v6: if self.balancing.is_some() {
                Some(FamilySettings {
                    node_ip: self.ip6(),
                    gateway: self.gateway6(),
                    service_cidr: "fd00:96::/112".parse()?,
                    cluster_cidr: "fd00:244::/56".parse()?,
                })
            } else {
                None
            },
            uplink_ifindex: self.netns.ifindex("eth0")?,
            vxlan_ifindex: self.netns.ifindex("skep_vxlan")?,
            host_ifindex: self.netns.ifindex("skep_host")?,
            host_mac: self.netns.mac("skep_host")?,
            net_ifindex: self.netns.ifindex("skep_net")?,
            net_mac: self.netns.mac("skep_net")?,
            node_ports: NODE_PORTS,
            nat_ports: NAT_PORTS,
            dsr: self.balancing.is_some_and(|balancing| balancing.dsr),
        })
    }

    fn open(&mut self, attach: Attach) -> anyhow::Result<()> {
        let config = DatapathConfig {
            pin_root: self.pins.path().into(),
            object_dir: std::env::var_os("SKEP_BPF_DIR").map(PathBuf::from),
            node: self.settings()?,
            sizes: MapSizes { conntrack: 65_536, sockets: 8192 },
            force_clsact: attach == Attach::Clsact,
        };
        let mut pods = Vec::new();
        for pod in &self.pods {
            pods.push(self.netns.ifindex(&pod.device)?);
        }
        let cgroup = self.cgroup.path().to_owned();
        let balancing = self.balancing;
        let datapath = self.netns.within(move || {
            let node = config.node;
            let datapath = Datapath::open(config)?;
            datapath.attach_overlay(node.vxlan_ifindex)?;
            datapath.attach_host(node.net_ifindex)?;
            datapath.attach_sock(&cgroup)?;
            if let Some(balancing) = balancing {
                datapath.attach_uplink(node.uplink_ifindex)?;
                if balancing.xdp {
                    datapath.attach_xdp_as(node.uplink_ifindex, skep_datapath::XdpMode::Generic)?;
                }
            }
            for pod in pods {
                datapath.attach_pod(pod)?;
            }
            Ok(datapath)
        })?;
        self.datapath = Some(datapath);
        Ok(())
    }

    fn fill(&self, nodes: u8) -> anyhow::Result<()> {
        let tables = self.datapath().tables();
        for pod in &self.pods {
            let endpoint = Endpoint {
                ifindex: self.netns.ifindex(&pod.device)?,
                mac: pod.netns.mac("eth0")?,
                host_mac: self.netns.mac(&pod.device)?,
            };
            tables.endpoints.update(&pod.ip.into(), &endpoint)?;
        }
        for number in 1..=nodes {
            let node = Ipv4Addr::new(10, 89, 0, 10 + number);
            let gateway = Ipv4Addr::new(10, 244, number, 1);
            let pods = IpCidr::new(gateway.into(), 24).context("pod range")?;
            let own = number == self.number;
            let (node_kind, pods_kind) = if own {
                (PeerKind::Host, PeerKind::LocalPods)
            } else {
                (PeerKind::RemoteNode(node.into()), PeerKind::RemotePods(node.into()))
            };
            tables.ipcache.update(&IpCidr::host(node.into()), &Peer::new(node_kind).with_node_port(true))?;
            tables.ipcache.update(&IpCidr::host(gateway.into()), &Peer::new(node_kind))?;
            tables.ipcache.update(&pods, &Peer::new(pods_kind))?;
        }
        Ok(())
    }

    /// Its underlay address in IPv6.
    #[must_use]
    pub fn ip6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x89, 0, 0, 0, 0, 0, 0x10 + u16::from(self.number))
    }

    /// Gateway of the node's pods in IPv6.
    #[must_use]
    pub fn gateway6(&self) -> Ipv6Addr {
        self.pod6(1)
    }

    /// Address of a pod in IPv6.
    #[must_use]
    pub fn pod6(&self, last: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x244, 0, self.number.into(), 0, 0, 0, last.into())
    }

    fn devices6(&self) -> anyhow::Result<()> {
        let (gateway, ip, net) = (self.gateway6(), self.ip6(), self.netns.mac("skep_net")?);
        self.netns.sh(&format!(
            "sysctl -qw net.ipv6.conf.eth0.forwarding=1 net.ipv6.conf.skep_host.accept_dad=0
             ip -6 neigh replace fe80::1 lladdr {net} dev skep_host nud permanent
             ip -6 addr add {gateway}/128 dev skep_host nodad
             ip -6 route add fd00:96::/112 via fe80::1 dev skep_host src {gateway}
             ip -6 route add fd00:244::/56 via fe80::1 dev skep_host src {ip}"
        ))?;
        Ok(())
    }

    fn add_pod6(&self, last: u8) -> anyhow::Result<()> {
        let (ip, gateway, device) = (self.pod6(last), self.gateway6(), format!("pod{last}"));
        let pod = self.pods.last().context("the pod is there already")?;
        let (inside, host) = (pod.netns.mac("eth0")?, self.netns.mac(&device)?);
        pod.netns.sh(&format!(
            "sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.eth0.disable_ipv6=0
             ip -6 addr add {ip}/128 dev eth0 nodad
             ip -6 neigh replace {gateway} lladdr {host} dev eth0 nud permanent
             ip -6 route add {gateway} dev eth0; ip -6 route add default via {gateway} dev eth0"
        ))?;
        self.netns.sh(&format!(
            "sysctl -qw net.ipv6.conf.{device}.disable_ipv6=0
             ip -6 route add {ip}/128 dev {device}
             ip -6 neigh replace {ip} lladdr {inside} dev {device} nud permanent"
        ))?;
        Ok(())
    }

    fn fill6(&self, nodes: u8) -> anyhow::Result<()> {
        let tables = self.datapath().tables();
        for pod in &self.pods {
            let endpoint = Endpoint {
                ifindex: self.netns.ifindex(&pod.device)?,
                mac: pod.netns.mac("eth0")?,
                host_mac: self.netns.mac(&pod.device)?,
            };
            tables.endpoints.update(&self.pod6(pod.ip.octets()[3]).into(), &endpoint)?;
        }
        for number in 1..=nodes {
            let underlay = Ipv4Addr::new(10, 89, 0, 10 + number).into();
            let node = Ipv6Addr::new(0xfd00, 0x89, 0, 0, 0, 0, 0, 0x10 + u16::from(number));
            let gateway = Ipv6Addr::new(0xfd00, 0x244, 0, number.into(), 0, 0, 0, 1);
            let pods = IpCidr::new(gateway.into(), 64).context("pod range")?;
            let (node_kind, pods_kind) = if number == self.number {
                (PeerKind::Host, PeerKind::LocalPods)
            } else {
                (PeerKind::RemoteNode(underlay), PeerKind::RemotePods(underlay))
            };
            let row = Peer::new(node_kind).with_node_port(true);
            tables.ipcache.update(&IpCidr::host(node.into()), &row)?;
            tables.ipcache.update(&IpCidr::host(gateway.into()), &Peer::new(node_kind))?;
            tables.ipcache.update(&pods, &Peer::new(pods_kind))?;
        }
        Ok(())
    }
}
