//! The tunnel believes nobody: inner sources are checked against the outer one, on real VXLAN. Needs root and objects.

#![allow(clippy::unwrap_used, reason = "what a test builds on must work")]

use std::{net::Ipv4Addr, time::Duration};

use skep_abi::{DropReason, Hook};
use skep_datapath::{Datapath, Peer as PeerRow, PeerKind};
use skep_model::IpCidr;
use skep_test_programs::{Attach, Cluster, Crafted, Peer, Segment};

const PEER: &str = env!("CARGO_BIN_EXE_skep-test-peer");

fn counted(datapath: &Datapath, reason: Option<DropReason>) -> u64 {
    let rows = datapath.counters().unwrap();
    rows.iter()
        .filter(|row| row.hook == Hook::FromOverlay && row.reason == reason)
        .map(|row| row.packets)
        .sum()
}

/// Sends from the second node's pod and waits until the first node has counted the reason.
#[track_caller]
fn expect(cluster: &Cluster, to: Ipv4Addr, reason: DropReason) {
    let datapath = cluster.nodes[0].datapath();
    let before = counted(datapath, Some(reason));
    let pod = &cluster.nodes[1].pods[0].netns;
    let mut client = Peer::start(PEER, pod, None, &["ping", &to.to_string(), "8", "whole"]).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while counted(datapath, Some(reason)) == before {
        assert!(std::time::Instant::now() < deadline, "{reason:?} {:?}", datapath.counters());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(client.line().is_err(), "an answer came");
}

#[test]
fn the_outer_source_must_own_the_inner_one() {
    let cluster = Cluster::new(1, Attach::Best).unwrap_or_else(|error| panic!("{error:#}"));
    let [first, second] = &cluster.nodes[..] else { panic!("two nodes") };
    let target = first.pods[0].ip;
    let pods: IpCidr = "10.244.2.0/24".parse().unwrap();
    let ipcache = &first.datapath().tables().ipcache;

    let pong = Peer::ask(PEER, &second.pods[0].netns, None, &["ping", &target.to_string(), "8", "whole"]);
    assert_eq!(pong.unwrap(), ["pong 8"]);

    ipcache.update(&pods, &PeerRow::new(PeerKind::RemotePods(Ipv4Addr::new(10, 89, 0, 99).into()))).unwrap();
    expect(&cluster, target, DropReason::TunnelSpoofed);
    ipcache.delete(&pods).unwrap();
    expect(&cluster, target, DropReason::PeerUnknown);
    ipcache.update(&pods, &PeerRow::new(PeerKind::RemotePods(second.ip.into()))).unwrap();

    // The second node is led to believe that the world is behind the first: a node is no transit.
    let world: IpCidr = "192.0.2.0/24".parse().unwrap();
    let lie = PeerRow::new(PeerKind::RemotePods(first.ip.into()));
    second.datapath().tables().ipcache.update(&world, &lie).unwrap();
    expect(&cluster, Ipv4Addr::new(192, 0, 2, 33), DropReason::NotForThisNode);
    let nobody: Ipv4Addr = "10.244.1.250".parse().unwrap();
    expect(&cluster, nobody, DropReason::NoEndpoint);
}

#[test]
fn packets_from_outside_the_tunnel_cannot_claim_a_pods_address() {
    let cluster = Cluster::new(1, Attach::Best).unwrap_or_else(|error| panic!("{error:#}"));
    let [first, second] = &cluster.nodes[..] else { panic!("two nodes") };
    let target = first.pods[0].ip;
    // The second node's host sends natively, past the tunnel, from its gateway address.
    second.netns.sh(&format!("ip route add {target}/32 via {} src {}", first.ip, second.gateway())).unwrap();
    let client = Peer::ask(PEER, &second.netns, None, &["ping", &target.to_string(), "8", "whole"]);
    assert!(client.is_err());
    let rows = first.datapath().counters().unwrap();
    let spoofed =
        rows.iter().find(|row| row.hook == Hook::ToPod && row.reason == Some(DropReason::TunnelSpoofed));
    assert!(spoofed.is_some(), "{rows:?}");
}

#[test]
fn a_lost_program_means_lost_traffic() {
    let cluster = Cluster::new(2, Attach::Best).unwrap_or_else(|error| panic!("{error:#}"));
    let node = &cluster.nodes[0];
    let (pod, neighbour) = (&node.pods[0], node.pods[1].ip);
    let ask = |to: Ipv4Addr| Peer::ask(PEER, &pod.netns, None, &["ping", &to.to_string(), "8", "whole"]);
    assert!(ask(neighbour).is_ok());
    let ifindex = node.netns.ifindex(&pod.device).unwrap();
    node.netns.within(|| Ok(node.datapath().detach_pod(ifindex)?)).unwrap();
    assert!(ask(neighbour).is_err(), "unpoliced traffic passed");
    assert!(ask(cluster.nodes[1].pods[0].ip).is_err(), "unpoliced traffic passed");
}

/// Sends an inner packet to the first node as the second node's tunnel would.
fn tunnelled(cluster: &Cluster, vni: u8, inner: &[u8]) {
    let mut packet = vec![8, 0, 0, 0, 0, 0, vni, 0];
    packet.extend(inner);
    let to = (cluster.nodes[0].ip, 8472);
    let send = || Ok(std::net::UdpSocket::bind("0.0.0.0:0")?.send_to(&packet, to)?);
    cluster.nodes[1].netns.within(send).unwrap();
}

#[test]
fn only_outside_clients_of_services_come_by_the_outside_tunnel() {
    let cluster = Cluster::new(1, Attach::Best).unwrap_or_else(|error| panic!("{error:#}"));
    let [first, second] = &cluster.nodes[..] else { panic!("two nodes") };
    let target = first.pods[0].ip;
    let world: Ipv4Addr = "192.0.2.33".parse().unwrap();
    let inner = |src| Crafted::new([2; 6], [4; 6], src, target, Segment::Udp(1, 2, b"data".to_vec())).bytes();
    for (vni, src, reason) in [
        (2, second.pods[0].ip, DropReason::NotOutside),
        (2, world, DropReason::NotOutside),
        (1, world, DropReason::PeerUnknown),
        (3, second.pods[0].ip, DropReason::UnknownVni),
    ] {
        let before = counted(first.datapath(), Some(reason));
        tunnelled(&cluster, vni, &inner(src));
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while counted(first.datapath(), Some(reason)) == before {
            assert!(std::time::Instant::now() < deadline, "{vni} {src} {:?}", first.datapath().counters());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
