//! The netlink shell against the kernel, in network namespaces of its own. Needs root; says so and passes without.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::Command as Process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use skep_model::MacAddr;
use skep_routing::{
    Actual, Desired, FamilyNetwork, HOST_LINK, NET_LINK, NodeNetwork, PodAddress, PodLink, RoutingError,
    TUNNEL_LINK, Uplink,
    namespace::{Namespace, check_pod, configure_pod},
    netlink::Netlink,
    plan,
};

const NODE_IP: Ipv4Addr = Ipv4Addr::new(10, 89, 77, 11);
const NODE_IP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x89, 0x77, 0, 0, 0, 0, 0x11);

/// A named namespace that goes away with the value.
struct Scratch {
    name: String,
}

impl Scratch {
    fn new(role: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let scratch = Scratch { name: format!("skep-t{}-{number}-{role}", std::process::id()) };
        ip(&["netns", "add", &scratch.name]);
        scratch
    }

    fn open(&self) -> Namespace {
        Namespace::open(&PathBuf::from("/run/netns").join(&self.name)).unwrap()
    }

    fn ip(&self, arguments: &[&str]) {
        ip(&[&["-n", &self.name], arguments].concat());
    }

    /// Whether something answers at the address, be it with a refusal.
    async fn reaches(&self, target: impl Into<IpAddr>) -> bool {
        let dialled = SocketAddr::new(target.into(), 9);
        let dial = move |_| async move { Ok(TcpStream::connect_timeout(&dialled, Duration::from_secs(2))) };
        match self.open().run(dial).await.unwrap() {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::ConnectionRefused,
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = Process::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn ip(arguments: &[&str]) {
    assert!(Process::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root to make network namespaces");
    }
    root
}

fn node() -> Scratch {
    let node = Scratch::new("node");
    node.ip(&["link", "set", "lo", "up"]);
    node.ip(&["link", "add", "eth0", "mtu", "1400", "type", "veth", "peer", "name", "far"]);
    node.ip(&["addr", "add", &format!("{NODE_IP}/24"), "dev", "eth0"]);
    node.ip(&["addr", "add", &format!("{NODE_IP6}/64"), "dev", "eth0", "nodad"]);
    node.ip(&["link", "set", "eth0", "up"]);
    node.ip(&["link", "set", "far", "up"]);
    node
}

fn network(uplink_mtu: u32) -> NodeNetwork {
    let v4 = FamilyNetwork {
        node_ip: NODE_IP,
        gateway: Ipv4Addr::new(10, 244, 7, 1),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
    };
    let uplink = Uplink { name: "eth0".into(), index: 0, mtu: uplink_mtu, heeds_routers: false };
    NodeNetwork { v4: Some(v4), v6: None, uplink, net_mac: MacAddr::default() }
}

/// The same node in both families, or in IPv6 alone.
fn network_v6(v4: bool, net_mac: MacAddr) -> NodeNetwork {
    let v6 = FamilyNetwork {
        node_ip: NODE_IP6,
        gateway: "fd00:244:0:7::1".parse().unwrap(),
        service_cidr: "fd00:96::/112".parse().unwrap(),
        cluster_cidr: "fd00:244::/56".parse().unwrap(),
    };
    let network = network(1400);
    NodeNetwork { v4: network.v4.filter(|_| v4), v6: Some(v6), net_mac, ..network }
}

async fn converge(netlink: &Netlink, desired: &Desired) -> Result<Actual, RoutingError> {
    for command in plan(desired, &netlink.actual().await?) {
        netlink.execute(&command).await?;
    }
    netlink.actual().await
}

/// Steps that remain, settings apart: those are compared when written.
fn remaining(desired: &Desired, actual: &Actual) -> Vec<skep_routing::Command> {
    let mut commands = plan(desired, actual);
    commands.retain(|command| !matches!(command, skep_routing::Command::WriteSysctl(..)));
    commands
}

#[tokio::test]
async fn a_node_converges_in_one_pass_and_stays() {
    if !is_root() {
        return;
    }
    let node = node();
    let (desired, actual) = node
        .open()
        .run(|netlink| async move {
            let uplink = netlink.uplink(NODE_IP.into()).await?;
            assert_eq!((uplink.name.as_str(), uplink.mtu), ("eth0", 1400));
            let desired = network(uplink.mtu).desired([]);
            let actual = converge(&netlink, &desired).await?;
            Ok((desired, actual))
        })
        .await
        .unwrap();
    assert_eq!(remaining(&desired, &actual), []);
    assert_eq!(actual.links[TUNNEL_LINK].mtu, 1350);
    assert_eq!(actual.routes.len(), 2);
    assert!(node.reaches([10, 244, 7, 1]).await);
}

#[tokio::test]
async fn stale_routes_and_addresses_of_ours_go_and_foreign_ones_stay() {
    if !is_root() {
        return;
    }
    let node = node();
    node.ip(&["route", "add", "10.55.0.0/16", "via", "10.89.77.1"]);
    let actual = node
        .open()
        .run(|netlink| async move {
            let mut before = network(1400);
            let v4 = before.v4.as_mut().unwrap();
            v4.service_cidr = "10.97.0.0/16".parse().unwrap();
            v4.gateway = Ipv4Addr::new(10, 244, 8, 1);
            converge(&netlink, &before.desired([])).await?;
            converge(&netlink, &network(1400).desired([])).await
        })
        .await
        .unwrap();
    assert!(!actual.routes.contains_key(&"10.97.0.0/16".parse().unwrap()));
    let held: Vec<_> = actual.addresses.iter().filter(|(link, _)| link == HOST_LINK).collect();
    assert_eq!(held.len(), 1);
    let shown =
        Process::new("ip").args(["-n", &node.name, "route", "show", "10.55.0.0/16"]).output().unwrap();
    assert!(!shown.stdout.is_empty());
}

#[tokio::test]
async fn a_pod_reaches_its_gateway_and_is_checked_and_removed() {
    if !is_root() {
        return;
    }
    let (node, sandbox) = (node(), Scratch::new("pod"));
    let address = PodAddress { ip: [10, 244, 7, 9].into(), gateway: [10, 244, 7, 1].into() };
    let pod = PodLink::new("0123456789abcdef", "eth0", 1350, vec![address]);
    let (inside, descriptor) = (sandbox.open(), sandbox.open());
    let planned = pod.clone();
    let desired = network(1400).desired([&planned]);
    let wanted = desired.clone();
    let actual = node
        .open()
        .run(move |netlink| async move {
            converge(&netlink, &network(1400).links()).await?;
            netlink.create_pod_pair(&planned, descriptor.descriptor()).await?;
            let pod = planned.clone();
            inside.run(move |netlink| configure_pod(netlink, pod)).await?;
            converge(&netlink, &wanted).await
        })
        .await
        .unwrap();
    assert_eq!(remaining(&desired, &actual), []);
    assert!(sandbox.reaches([10, 244, 7, 1]).await);
    assert!(node.reaches([10, 244, 7, 9]).await);

    let checked = pod.clone();
    assert_eq!(
        sandbox.open().run(|netlink| check_pod(netlink, checked)).await.unwrap(),
        Vec::<String>::new()
    );
    let name = pod.host_name.clone();
    node.open().run(|netlink| async move { netlink.delete_link(&name).await }).await.unwrap();
    let name = pod.host_name.clone();
    node.open().run(|netlink| async move { netlink.delete_link(&name).await }).await.unwrap();
    let checked = pod.clone();
    let problems = sandbox.open().run(|netlink| check_pod(netlink, checked)).await.unwrap();
    assert_eq!(problems, ["the pod has no device eth0"]);
}

#[tokio::test]
async fn a_missing_namespace_and_a_missing_uplink_are_named() {
    let error = Namespace::open(&PathBuf::from("/run/netns/skep-no-such")).unwrap_err();
    assert!(error.to_string().contains("skep-no-such"));
    if !is_root() {
        return;
    }
    let empty = Scratch::new("empty");
    let error =
        empty.open().run(|netlink| async move { netlink.uplink(NODE_IP.into()).await }).await.unwrap_err();
    assert!(matches!(error, RoutingError::NoUplink(_)));
}

/// What `ip -6` says in a namespace.
async fn dump_v6(node: &Scratch, arguments: &[&str]) -> String {
    let output = Process::new("ip").args(["-n", &node.name, "-6"]).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn a_node_converges_in_both_families_and_in_ipv6_alone() {
    if !is_root() {
        return;
    }
    for v4 in [true, false] {
        let node = node();
        let (desired, actual) = node
            .open()
            .run(move |netlink| async move {
                converge(&netlink, &network_v6(v4, MacAddr::default()).links()).await?;
                let net = netlink.links().await?[NET_LINK].mac;
                let desired = network_v6(v4, net).desired([]);
                let actual = converge(&netlink, &desired).await?;
                Ok((desired, actual))
            })
            .await
            .unwrap();
        assert_eq!(remaining(&desired, &actual), []);
        assert_eq!(actual.links[TUNNEL_LINK].mtu, if v4 { 1350 } else { 1330 });
        let gateway: Ipv6Addr = "fd00:244:0:7::1".parse().unwrap();
        assert!(node.reaches(gateway).await);
        let route = dump_v6(&node, &["route", "get", "fd00:96::9"]).await;
        let tunnel = dump_v6(&node, &["-d", "link", "show", TUNNEL_LINK]).await;
        assert!(tunnel.contains("external") && tunnel.contains("udp6zerocsumrx"), "{tunnel}");
        assert!(route.contains("via fe80::1") && route.contains(&format!("src {NODE_IP6}")), "{route}");
    }
}

#[tokio::test]
async fn a_node_that_leaves_ipv6_behind_keeps_none_of_it() {
    if !is_root() {
        return;
    }
    let node = node();
    let actual = node
        .open()
        .run(|netlink| async move {
            converge(&netlink, &network_v6(true, MacAddr::default()).links()).await?;
            let net = netlink.links().await?[NET_LINK].mac;
            converge(&netlink, &network_v6(true, net).desired([])).await?;
            converge(&netlink, &network(1400).desired([])).await
        })
        .await
        .unwrap();
    assert!(actual.routes.keys().all(|to| to.network().is_ipv4()), "{:?}", actual.routes);
    assert!(actual.addresses.iter().all(|(link, cidr)| link != HOST_LINK || cidr.network().is_ipv4()));
}

#[tokio::test]
async fn a_pod_of_two_families_is_reached_in_both_without_asking_neighbours() {
    if !is_root() {
        return;
    }
    let (node, sandbox) = (node(), Scratch::new("pod"));
    let v6: Ipv6Addr = "fd00:244:0:7::9".parse().unwrap();
    let gateway: Ipv6Addr = "fd00:244:0:7::1".parse().unwrap();
    let addresses = vec![
        PodAddress { ip: [10, 244, 7, 9].into(), gateway: [10, 244, 7, 1].into() },
        PodAddress { ip: v6.into(), gateway: gateway.into() },
    ];
    let pod = PodLink::new("0123456789abcdef", "eth0", 1350, addresses);
    let (inside, descriptor) = (sandbox.open(), sandbox.open());
    let planned = pod.clone();
    let (desired, actual) = node
        .open()
        .run(move |netlink| async move {
            converge(&netlink, &network_v6(true, MacAddr::default()).links()).await?;
            let net = netlink.links().await?[NET_LINK].mac;
            netlink.create_pod_pair(&planned, descriptor.descriptor()).await?;
            let desired = network_v6(true, net).desired([&planned]);
            let pod = planned.clone();
            inside.run(move |netlink| configure_pod(netlink, pod)).await?;
            let actual = converge(&netlink, &desired).await?;
            Ok((desired, actual))
        })
        .await
        .unwrap();
    assert_eq!(remaining(&desired, &actual), []);
    assert!(sandbox.reaches(gateway).await && sandbox.reaches([10, 244, 7, 1]).await);
    assert!(node.reaches(v6).await && node.reaches([10, 244, 7, 9]).await);
    let neighbours = dump_v6(&node, &["neigh", "show", "dev", &pod.host_name]).await;
    assert!(neighbours.lines().all(|line| line.contains("PERMANENT")), "{neighbours}");
    let held = dump_v6(&sandbox, &["addr", "show", "dev", "eth0"]).await;
    assert!(held.contains("fe80::") && !held.contains("tentative"), "{held}");
    let checked = sandbox.open().run(|netlink| check_pod(netlink, pod)).await.unwrap();
    assert_eq!(checked, Vec::<String>::new());
}
