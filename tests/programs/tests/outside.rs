//! Real clients outside the cluster, at node ports of both families: translated at both ends or answered directly, with
//! and without the program before the stack. Needs root and objects.

#![allow(clippy::unwrap_used, reason = "what a test builds on must work")]

use std::net::{IpAddr, SocketAddr};

use skep_abi::Hook;
use skep_datapath::{BackendAddress, BackendSlot, Frontend, FrontendFlags, FrontendKey, Scope};
use skep_model::{FrontendAddress, Port, Protocol};
use skep_test_programs::{Balancing, Cluster, Peer, cluster::Node};

const PEER: &str = env!("CARGO_BIN_EXE_skep-test-peer");

fn any_of(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { [0, 0, 0, 0].into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() }
}

/// A node port on a node; a set of its own for backends of the node itself.
fn node_port(node: &Node, set: u32, port: u16, protocol: Protocol, backend: SocketAddr, is_local: bool) {
    let tables = node.datapath().tables();
    let flags = FrontendFlags { external: true, node_port: true, ..FrontendFlags::default() };
    let address = FrontendAddress { ip: any_of(backend.ip()), port: Port::new(port).unwrap(), protocol };
    let row = |scope, set, count| {
        let slot = BackendSlot { set, slot: 0 };
        tables.backends.update(&slot, &BackendAddress { ip: backend.ip(), port: backend.port() }).unwrap();
        let frontend = Frontend { flags, ..Frontend::new(set, count) };
        tables.frontends.update(&FrontendKey { address, scope }, &frontend).unwrap();
    };
    row(Scope::Inside, set, 1);
    row(Scope::Local, set + 1000, u16::from(is_local));
}

fn everywhere(cluster: &Cluster, set: u32, port: u16, protocol: Protocol, backend: SocketAddr, home: u8) {
    for node in &cluster.nodes {
        node_port(node, set, port, protocol, backend, node.number == home);
    }
}

fn counters(cluster: &Cluster) -> String {
    let rows = |node: &Node| format!("node{}: {:#?}", node.number, node.datapath().counters());
    cluster.nodes.iter().map(rows).collect()
}

#[track_caller]
fn ask(cluster: &Cluster, arguments: &[&str]) -> String {
    let outside = cluster.outside.as_ref().unwrap();
    match Peer::ask(PEER, outside, None, arguments) {
        Ok(lines) => lines[0].clone(),
        Err(error) => panic!("{error:#}\n{}", counters(cluster)),
    }
}

fn serve(netns: &skep_test_programs::netns::Netns, protocol: &str, at: SocketAddr, name: &str) -> Peer {
    Peer::serve(PEER, netns, &[&format!("{protocol}-echo"), &at.to_string(), name]).unwrap()
}

fn node_ports_work(balancing: Balancing, is_ipv6: bool) {
    let cluster = Cluster::balanced(balancing).unwrap_or_else(|error| panic!("{error:#}"));
    let [first, second] = &cluster.nodes[..] else { panic!("two nodes") };
    let of = |node: &Node| -> (IpAddr, IpAddr, IpAddr) {
        if is_ipv6 {
            (node.ip6().into(), node.pod6(5).into(), node.gateway6().into())
        } else {
            (node.ip.into(), node.pods[0].ip.into(), node.gateway().into())
        }
    };
    let (front, local, gateway) = of(first);
    let remote = of(second).1;
    let client: IpAddr = if is_ipv6 { "fd00:89::200".parse().unwrap() } else { [10, 89, 0, 200].into() };
    let at = |ip, port| SocketAddr::new(ip, port);
    let _servers = [
        serve(&second.pods[0].netns, "tcp", at(remote, 80), "remote"),
        serve(&second.pods[0].netns, "udp", at(remote, 53), "remote"),
        serve(&first.pods[0].netns, "tcp", at(local, 80), "local"),
        serve(&first.netns, "tcp", at(front, 6443), "host"),
    ];
    everywhere(&cluster, 1, 30_080, Protocol::Tcp, at(remote, 80), 2);
    everywhere(&cluster, 2, 30_053, Protocol::Udp, at(remote, 53), 2);
    everywhere(&cluster, 3, 30_081, Protocol::Tcp, at(local, 80), 1);
    everywhere(&cluster, 4, 30_443, Protocol::Tcp, at(front, 6443), 1);
    let seen = if balancing.dsr { client } else { gateway };
    let to = |port| at(front, port).to_string();
    let peer = |port| format!("peer={}", at(front, port));
    assert_eq!(ask(&cluster, &["tcp-get", &to(30_081)]), format!("local {client} {}", peer(30_081)));
    assert_eq!(ask(&cluster, &["tcp-get", &to(30_443)]), format!("host {client} {}", peer(30_443)));
    for _ in 0..3 {
        assert_eq!(ask(&cluster, &["tcp-get", &to(30_080)]), format!("remote {seen} {}", peer(30_080)));
    }
    assert_eq!(ask(&cluster, &["udp-get", &to(30_053)]), format!("remote {seen} one from={}", to(30_053)));
    assert_eq!(ask(&cluster, &["bulk", &to(30_080), "3000000"]), "bulk 3000000");
    let early = first.datapath().counters().unwrap();
    let early = early.iter().any(|row| row.hook == Hook::Xdp && row.reason.is_none());
    assert_eq!(early, balancing.xdp, "{}", counters(&cluster));
}

#[test]
fn node_ports_translate_both_ends() {
    for is_ipv6 in [false, true] {
        node_ports_work(Balancing { dsr: false, xdp: false }, is_ipv6);
    }
}

#[test]
fn node_ports_are_answered_directly() {
    for is_ipv6 in [false, true] {
        node_ports_work(Balancing { dsr: true, xdp: false }, is_ipv6);
    }
}

#[test]
fn node_ports_are_served_before_the_stack() {
    for dsr in [false, true] {
        for is_ipv6 in [false, true] {
            node_ports_work(Balancing { dsr, xdp: true }, is_ipv6);
        }
    }
}
