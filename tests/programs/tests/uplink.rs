//! Clients outside the cluster, at the uplink's programs: verdict, bytes with verified checksums, conntrack. Needs root
//! and objects.

#![allow(clippy::unwrap_used, reason = "what a test builds on must work")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use skep_abi::{
    DropReason, Hook,
    programs::{FROM_POD, FROM_UPLINK, TO_UPLINK},
};
use skep_datapath::{Frontend, FrontendFlags, MaglevKey, Scope, SourceRange};
use skep_model::Protocol;
use skep_test_programs::{
    Bench, Crafted, Segment,
    bench::{
        DROP, GATEWAY, GATEWAY6, HOST_MAC, NEIGHBOUR, NEIGHBOUR_MAC, NEIGHBOUR6, NODE, NODE6, PASS, POD,
        POD_HOST_MAC, POD_MAC, POD6, REDIRECT, REMOTE_POD, REMOTE_POD6, VIP, WORLD, WORLD6,
    },
    craft::{ACK, Ip, SYN},
};

const NODE_PORT: u16 = 30_080;
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];
const EXTERNAL: FrontendFlags =
    FrontendFlags { external: true, split: false, source_ranges: false, silent: false, node_port: false };
const ON_NODES: FrontendFlags = FrontendFlags { node_port: true, ..EXTERNAL };

/// The addresses of a test in one family.
trait Net: Ip + Into<IpAddr> {
    const ANY: Self;
    const NODE: Self;
    const GATEWAY: Self;
    const POD: Self;
    const NEIGHBOUR: Self;
    const REMOTE_POD: Self;
    const WORLD: Self;
}

impl Net for Ipv4Addr {
    const ANY: Self = Ipv4Addr::UNSPECIFIED;
    const NODE: Self = NODE;
    const GATEWAY: Self = GATEWAY;
    const POD: Self = POD;
    const NEIGHBOUR: Self = NEIGHBOUR;
    const REMOTE_POD: Self = REMOTE_POD;
    const WORLD: Self = WORLD;
}

impl Net for Ipv6Addr {
    const ANY: Self = Ipv6Addr::UNSPECIFIED;
    const NODE: Self = NODE6;
    const GATEWAY: Self = GATEWAY6;
    const POD: Self = POD6;
    const NEIGHBOUR: Self = NEIGHBOUR6;
    const REMOTE_POD: Self = REMOTE_POD6;
    const WORLD: Self = WORLD6;
}

fn bench() -> Bench {
    Bench::new().unwrap_or_else(|error| panic!("{error:#}"))
}

fn node_port<A: Net>(bench: &Bench, set: u32, protocol: Protocol, backends: &[(A, u16)]) {
    let backends: Vec<(IpAddr, u16)> = backends.iter().map(|(ip, port)| ((*ip).into(), *port)).collect();
    let frontend = Frontend { flags: ON_NODES, ..Frontend::new(set, 0) };
    bench.frontend((A::ANY.into(), NODE_PORT, protocol), Scope::Inside, frontend, &backends).unwrap();
}

fn tcp(from: u16, to: u16, flags: u8) -> Segment {
    Segment::Tcp(from, to, flags, b"payload".to_vec())
}

/// Link-layer address of the device of a test run: the loopback's.
const OWN_MAC: [u8; 6] = [0; 6];

fn from_world<A: Net>(segment: Segment) -> Crafted<A> {
    Crafted::new(ROUTER_MAC, OWN_MAC, A::WORLD, A::NODE, segment)
}

#[test]
fn frames_for_other_machines_are_left_to_the_stack() {
    let bench = bench();
    node_port::<Ipv4Addr>(&bench, 1, Protocol::Tcp, &[(Ipv4Addr::REMOTE_POD, 8080)]);
    let flooded = Crafted { dst_mac: HOST_MAC, ..from_world::<Ipv4Addr>(tcp(40_000, NODE_PORT, SYN)) };
    let outcome = bench.run(&FROM_UPLINK, &flooded.bytes()).unwrap();
    assert_eq!((outcome.verdict, outcome.bytes), (PASS, flooded.bytes()));
}

#[track_caller]
fn expect_drop<A: Net>(bench: &Bench, packet: &Crafted<A>, reason: DropReason) {
    let before = bench.counted(Hook::FromUplink, Some(reason)).unwrap();
    let verdict = bench.run(&FROM_UPLINK, &packet.bytes()).unwrap().verdict;
    assert_eq!(verdict, DROP, "{reason:?} {:?}", bench.datapath().counters());
    assert_eq!(bench.counted(Hook::FromUplink, Some(reason)).unwrap(), before + 1);
}

fn a_remote_backend_sees_the_gateway<A: Net>() {
    let bench = bench();
    node_port::<A>(&bench, 1, Protocol::Tcp, &[(A::REMOTE_POD, 8080)]);
    let (verdict, packet) = bench.pass(&FROM_UPLINK, &from_world::<A>(tcp(40_000, NODE_PORT, SYN))).unwrap();
    assert_eq!(verdict, REDIRECT, "{:?}", bench.datapath().counters());
    assert_eq!((packet.src, packet.dst), (A::GATEWAY, A::REMOTE_POD));
    assert_eq!(packet.segment, tcp(40_000, 8080, SYN), "the client's port is free on the gateway");
    let again = bench.pass(&FROM_UPLINK, &from_world::<A>(tcp(40_000, NODE_PORT, ACK))).unwrap().1;
    assert_eq!((again.src, again.segment), (A::GATEWAY, tcp(40_000, 8080, ACK)));
    // The same port of another client gets another one.
    let mut other = from_world::<A>(tcp(40_000, NODE_PORT, SYN));
    other.src = A::WORLD;
    other.dst = A::NODE;
    let flows = bench.datapath().conntrack().unwrap();
    assert_eq!(flows.len(), 2);
    assert!(flows.iter().all(|flow| flow.set == 1 && flow.peer.is_some()), "{flows:?}");
}

#[test]
fn a_remote_backend_sees_the_gateway_in_both_families() {
    a_remote_backend_sees_the_gateway::<Ipv4Addr>();
    a_remote_backend_sees_the_gateway::<Ipv6Addr>();
}

fn a_local_backend_sees_the_client<A: Net>() {
    let bench = bench();
    node_port::<A>(&bench, 1, Protocol::Udp, &[(A::NEIGHBOUR, 5353)]);
    let ask = Segment::Udp(40_000, NODE_PORT, b"ask".to_vec());
    let (verdict, packet) = bench.pass(&FROM_UPLINK, &from_world::<A>(ask)).unwrap();
    assert_eq!(verdict, REDIRECT, "{:?}", bench.datapath().counters());
    assert_eq!((packet.src, packet.dst, packet.dst_mac), (A::WORLD, A::NEIGHBOUR, NEIGHBOUR_MAC));
    assert_eq!(packet.segment, Segment::Udp(40_000, 5353, b"ask".to_vec()));
}

#[test]
fn a_local_backend_sees_the_client_in_both_families() {
    a_local_backend_sees_the_client::<Ipv4Addr>();
    a_local_backend_sees_the_client::<Ipv6Addr>();
}

fn a_process_of_the_node_answers_from_the_frontend<A: Net>() {
    let bench = bench();
    node_port::<A>(&bench, 1, Protocol::Tcp, &[(A::NODE, 6443)]);
    let (verdict, packet) = bench.pass(&FROM_UPLINK, &from_world::<A>(tcp(40_000, NODE_PORT, SYN))).unwrap();
    assert_eq!((verdict, packet.dst), (PASS, A::NODE), "{:?}", bench.datapath().counters());
    assert_eq!(packet.segment, tcp(40_000, 6443, SYN));
    let answer = Crafted::new(HOST_MAC, ROUTER_MAC, A::NODE, A::WORLD, tcp(6443, 40_000, SYN | ACK));
    let (verdict, answer) = bench.pass(&TO_UPLINK, &answer).unwrap();
    assert_eq!((verdict, answer.src), (PASS, A::NODE));
    assert_eq!(answer.segment, tcp(NODE_PORT, 40_000, SYN | ACK));
}

#[test]
fn a_process_of_the_node_answers_from_the_frontend_in_both_families() {
    a_process_of_the_node_answers_from_the_frontend::<Ipv4Addr>();
    a_process_of_the_node_answers_from_the_frontend::<Ipv6Addr>();
}

fn what_is_for_no_frontend_passes_untouched<A: Net>() {
    let bench = bench();
    node_port::<A>(&bench, 1, Protocol::Tcp, &[(A::REMOTE_POD, 8080)]);
    for segment in [
        tcp(40_000, 22, SYN),
        tcp(40_000, NODE_PORT, ACK),
        Segment::Udp(40_000, NODE_PORT, b"other protocol".to_vec()),
        Segment::Icmp(8, 0, [0, 7, 0, 1], b"ping".to_vec()),
    ] {
        let sent = from_world::<A>(segment);
        let outcome = bench.run(&FROM_UPLINK, &sent.bytes()).unwrap();
        assert_eq!((outcome.verdict, outcome.bytes), (PASS, sent.bytes()));
        let answer = Crafted::new(HOST_MAC, ROUTER_MAC, A::NODE, A::WORLD, sent.segment);
        let outcome = bench.run(&TO_UPLINK, &answer.bytes()).unwrap();
        assert_eq!((outcome.verdict, outcome.bytes), (PASS, answer.bytes()));
    }
    assert!(bench.datapath().conntrack().unwrap().is_empty());
}

#[test]
fn what_is_for_no_frontend_passes_untouched_in_both_families() {
    what_is_for_no_frontend_passes_untouched::<Ipv4Addr>();
    what_is_for_no_frontend_passes_untouched::<Ipv6Addr>();
}

#[test]
fn a_cluster_address_is_no_service_for_outside_clients() {
    let bench = bench();
    bench.service(1, Protocol::Tcp, 80, &[(REMOTE_POD, 8080)]).unwrap();
    let sent = Crafted::new(ROUTER_MAC, OWN_MAC, WORLD, VIP, tcp(1, 80, SYN));
    let outcome = bench.run(&FROM_UPLINK, &sent.bytes()).unwrap();
    assert_eq!((outcome.verdict, outcome.bytes), (PASS, sent.bytes()));
}

fn outside_clients_are_kept_out<A: Net>() {
    let bench = bench();
    let target = |port| (A::ANY.into(), port, Protocol::Tcp);
    let ranged = FrontendFlags { source_ranges: true, ..ON_NODES };
    let silent = FrontendFlags { silent: true, ..ON_NODES };
    let backend = [(A::REMOTE_POD.into(), 8080)];
    let row = |set, flags| Frontend { flags, ..Frontend::new(set, 0) };
    bench.frontend(target(30_001), Scope::Inside, row(1, ranged), &backend).unwrap();
    bench.frontend(target(30_002), Scope::Inside, row(2, silent), &[]).unwrap();
    expect_drop(&bench, &from_world::<A>(tcp(1, 30_001, SYN)), DropReason::SourceRange);
    expect_drop(&bench, &from_world::<A>(tcp(1, 30_002, SYN)), DropReason::NoLocalBackend);
    let cidr = skep_model::IpCidr::new(A::WORLD.into(), 24).unwrap();
    bench.datapath().tables().sources.update(&SourceRange { set: 1, cidr }, &()).unwrap();
    let (verdict, _) = bench.pass(&FROM_UPLINK, &from_world::<A>(tcp(1, 30_001, SYN))).unwrap();
    assert_eq!(verdict, REDIRECT);
    let foreign = SourceRange { set: 9, cidr };
    bench.datapath().tables().sources.delete(&SourceRange { set: 1, cidr }).unwrap();
    bench.datapath().tables().sources.update(&foreign, &()).unwrap();
    expect_drop(&bench, &from_world::<A>(tcp(2, 30_001, SYN)), DropReason::SourceRange);
}

#[test]
fn outside_clients_are_kept_out_in_both_families() {
    outside_clients_are_kept_out::<Ipv4Addr>();
    outside_clients_are_kept_out::<Ipv6Addr>();
}

#[test]
fn outside_clients_have_rows_of_their_own() {
    let bench = bench();
    let target = (VIP.into(), 80, Protocol::Tcp);
    let flags = FrontendFlags { split: true, ..EXTERNAL };
    let row = |set, flags| Frontend { flags, ..Frontend::new(set, 0) };
    bench.frontend(target, Scope::Inside, row(1, flags), &[(REMOTE_POD.into(), 1)]).unwrap();
    bench.frontend(target, Scope::Outside, row(2, EXTERNAL), &[(NEIGHBOUR.into(), 2)]).unwrap();
    let sent = Crafted::new(ROUTER_MAC, OWN_MAC, WORLD, VIP, tcp(1, 80, SYN));
    assert_eq!(bench.pass(&FROM_UPLINK, &sent).unwrap().1.dst, NEIGHBOUR);
    let inside = Crafted::new(POD_MAC, POD_HOST_MAC, POD, VIP, tcp(1, 80, SYN));
    assert_eq!(bench.pass(&FROM_POD, &inside).unwrap().1.dst, REMOTE_POD);
}

#[test]
fn outside_clients_follow_the_maglev_table() {
    let bench = bench();
    let row = Frontend { flags: ON_NODES, maglev: 251, ..Frontend::new(1, 0) };
    let backends = [(REMOTE_POD.into(), 1), (NEIGHBOUR.into(), 2)];
    bench
        .frontend((Ipv4Addr::UNSPECIFIED.into(), NODE_PORT, Protocol::Tcp), Scope::Inside, row, &backends)
        .unwrap();
    for slot in [1, 0] {
        for chunk in 0..4 {
            bench.datapath().tables().maglev.update(&MaglevKey { set: 1, chunk }, &[slot; 64]).unwrap();
        }
        for port in 0..20 {
            let sent = from_world::<Ipv4Addr>(tcp(1000 * (slot + 1) + port, NODE_PORT, SYN));
            let expected = if slot == 1 { NEIGHBOUR } else { REMOTE_POD };
            assert_eq!(bench.pass(&FROM_UPLINK, &sent).unwrap().1.dst, expected);
        }
    }
}

fn a_client_with_affinity_stays<A: Net>() {
    let bench = bench();
    let row = Frontend { flags: ON_NODES, affinity_seconds: 10_800, ..Frontend::new(1, 0) };
    let backends = [(A::REMOTE_POD.into(), 1), (A::NEIGHBOUR.into(), 2), (A::POD.into(), 3)];
    bench.frontend((A::ANY.into(), NODE_PORT, Protocol::Tcp), Scope::Inside, row, &backends).unwrap();
    let dst = |port| bench.pass(&FROM_UPLINK, &from_world::<A>(tcp(port, NODE_PORT, SYN))).unwrap().1.dst;
    let first = dst(1000);
    assert!((1001..1020).all(|port| dst(port) == first));
    let entries = bench.datapath().affinity().unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].backend.ip(), first.into());
    assert_eq!(entries[0].client, skep_datapath::AffinityClient::Address(A::WORLD.into()));
}

#[test]
fn a_client_with_affinity_stays_in_both_families() {
    a_client_with_affinity_stays::<Ipv4Addr>();
    a_client_with_affinity_stays::<Ipv6Addr>();
}

#[test]
fn ports_of_the_gateway_run_out_and_it_is_said_so() {
    let mut bench = bench();
    bench.reconfigure(|node| node.nat_ports = (5000, 5000)).unwrap();
    node_port::<Ipv4Addr>(&bench, 1, Protocol::Tcp, &[(REMOTE_POD, 8080)]);
    let (_, packet) = bench.pass(&FROM_UPLINK, &from_world::<Ipv4Addr>(tcp(40_000, NODE_PORT, SYN))).unwrap();
    assert_eq!(packet.segment, tcp(5000, 8080, SYN));
    expect_drop(&bench, &from_world::<Ipv4Addr>(tcp(40_001, NODE_PORT, SYN)), DropReason::SnatExhausted);
}

#[test]
fn sctp_keeps_its_ports_or_is_refused() {
    let bench = bench();
    let segment =
        |to: u16| Segment::Raw(132, [40_000_u16.to_be_bytes(), to.to_be_bytes(), [0; 2], [0; 2]].concat());
    node_port::<Ipv4Addr>(&bench, 1, Protocol::Sctp, &[(NEIGHBOUR, NODE_PORT)]);
    let (verdict, packet) = bench.pass(&FROM_UPLINK, &from_world::<Ipv4Addr>(segment(NODE_PORT))).unwrap();
    assert_eq!((verdict, packet.dst, packet.segment), (REDIRECT, NEIGHBOUR, segment(NODE_PORT)));
    let other = (IpAddr::from(Ipv4Addr::UNSPECIFIED), 30_132, Protocol::Sctp);
    let row = Frontend { flags: ON_NODES, ..Frontend::new(2, 0) };
    bench.frontend(other, Scope::Inside, row, &[(NEIGHBOUR.into(), 9000)]).unwrap();
    expect_drop(&bench, &from_world::<Ipv4Addr>(segment(30_132)), DropReason::SctpPort);
}

fn a_pod_reaches_itself_through_its_service<A: Net>() {
    let bench = bench();
    let row = Frontend { flags: ON_NODES, ..Frontend::new(1, 0) };
    let target = (A::NODE.into(), 80, Protocol::Tcp);
    bench.frontend(target, Scope::Inside, row, &[(A::POD.into(), 8080)]).unwrap();
    let asked = Crafted::new(POD_MAC, POD_HOST_MAC, A::POD, A::NODE, tcp(40_000, 80, SYN));
    let (verdict, packet) = bench.pass(&FROM_POD, &asked).unwrap();
    assert_eq!(verdict, REDIRECT, "{:?}", bench.datapath().counters());
    assert_eq!((packet.src, packet.dst, packet.dst_mac), (A::GATEWAY, A::POD, POD_MAC));
    let Segment::Tcp(port, 8080, SYN, _) = packet.segment else { panic!("{packet:?}") };
    let answer = Crafted::new(POD_MAC, POD_HOST_MAC, A::POD, A::GATEWAY, tcp(8080, port, SYN | ACK));
    let (verdict, answer) = bench.pass(&FROM_POD, &answer).unwrap();
    assert_eq!((verdict, answer.src, answer.dst), (REDIRECT, A::NODE, A::POD));
    assert_eq!(answer.segment, tcp(80, 40_000, SYN | ACK));
}

#[test]
fn a_pod_reaches_itself_through_its_service_in_both_families() {
    a_pod_reaches_itself_through_its_service::<Ipv4Addr>();
    a_pod_reaches_itself_through_its_service::<Ipv6Addr>();
}

#[test]
fn removed_backends_lose_their_flows_and_affinity() {
    use skep_datapath::CutBackend;
    let bench = bench();
    let row = Frontend { flags: ON_NODES, affinity_seconds: 100, ..Frontend::new(1, 0) };
    let target = (Ipv4Addr::UNSPECIFIED.into(), NODE_PORT, Protocol::Udp);
    bench.frontend(target, Scope::Inside, row, &[(REMOTE_POD.into(), 53)]).unwrap();
    bench.pass(&FROM_UPLINK, &from_world::<Ipv4Addr>(Segment::Udp(1, NODE_PORT, Vec::new()))).unwrap();
    let backend = std::net::SocketAddr::new(REMOTE_POD.into(), 53);
    let cut = |protocol| CutBackend { set: Some(1), backend, protocol };
    assert_eq!(bench.datapath().conntrack().unwrap().len(), 2);
    assert_eq!(bench.datapath().cut_backend(&cut(17)).unwrap(), 3);
    assert!(bench.datapath().conntrack().unwrap().is_empty());
    assert!(bench.datapath().affinity().unwrap().is_empty());
}

const XDP_PASS: u32 = 2;
const XDP_DROP: u32 = 1;
const XDP_REDIRECT: u32 = 4;

/// A packet before the stack, on a node that knows the way to the other node. What goes into the tunnel is read back.
fn early<A: Net>(bench: &Bench, packet: &Crafted<A>) -> (u32, Option<(u8, Crafted<A>)>) {
    let bytes = packet.bytes();
    let run = skep_datapath::TestPacket { bytes: &bytes, ..skep_datapath::TestPacket::default() };
    let outcome = bench.datapath().test_run_xdp(&run).unwrap();
    if outcome.verdict != XDP_REDIRECT {
        return (outcome.verdict, None);
    }
    let outer = Crafted::<Ipv4Addr>::parse(&outcome.bytes).unwrap();
    assert_eq!((outer.src, outer.dst), (NODE, skep_test_programs::bench::OTHER_NODE));
    assert_eq!(outer.dst_mac, [2, 0, 0, 0, 7, 7]);
    let Segment::UdpNoChecksum(_, 8472, vxlan) = outer.segment else { panic!("{outer:?}") };
    assert_eq!(vxlan[..4], [8, 0, 0, 0]);
    (outcome.verdict, Some((vxlan[6], Crafted::parse(&vxlan[8..]).unwrap())))
}

fn underlay() -> skep_test_programs::netns::Netns {
    let netns = skep_test_programs::netns::Netns::new("early").unwrap_or_else(|error| panic!("{error:#}"));
    netns
        .sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.lo.forwarding=1 net.ipv6.conf.all.forwarding=1
             ip link add eth0 type veth peer name eth1; ip link set eth0 up; ip link set eth1 up
             ip addr add 10.89.0.11/24 dev eth0
             ip neigh replace 10.89.0.12 lladdr 02:00:00:00:07:07 dev eth0 nud permanent")
        .unwrap();
    netns
}

fn before_the_stack<A: Net>(dsr: bool) {
    let mut bench = bench();
    bench.reconfigure(|node| node.dsr = dsr).unwrap();
    node_port::<A>(&bench, 1, Protocol::Tcp, &[(A::REMOTE_POD, 8080)]);
    node_port::<A>(&bench, 2, Protocol::Udp, &[(A::REMOTE_POD, 5353)]);
    let (vni, front) = if dsr { (2, true) } else { (1, false) };
    for (port, text) in [(40_000, "one"), (40_000, "two"), (40_001, "three"), (40_002, "some more words")] {
        for (ask, translated) in [
            (Segment::Tcp(port, NODE_PORT, SYN, text.into()), Segment::Tcp(port, 8080, SYN, text.into())),
            (Segment::Udp(port, NODE_PORT, text.into()), Segment::Udp(port, 5353, text.into())),
            (
                Segment::UdpNoChecksum(port, NODE_PORT, text.into()),
                Segment::UdpNoChecksum(port, 5353, text.into()),
            ),
        ] {
            let sent = from_world::<A>(ask.clone());
            let (verdict, inner) = early(&bench, &sent);
            assert_eq!(verdict, XDP_REDIRECT, "{:?}", bench.datapath().counters());
            let (found, inner) = inner.unwrap();
            assert_eq!(found, vni);
            if front {
                assert_eq!(inner, sent, "the packet goes untranslated");
            } else {
                assert_eq!((inner.src, inner.dst), (A::GATEWAY, A::REMOTE_POD));
                assert_eq!(inner.segment, translated);
            }
        }
    }
    let stray = from_world::<A>(tcp(1, 22, SYN));
    assert_eq!(early(&bench, &stray).0, XDP_PASS);
    let row = Frontend { flags: FrontendFlags { silent: true, ..ON_NODES }, ..Frontend::new(9, 0) };
    bench.frontend((A::ANY.into(), 30_999, Protocol::Tcp), Scope::Inside, row, &[]).unwrap();
    assert_eq!(early(&bench, &from_world::<A>(tcp(1, 30_999, SYN))).0, XDP_DROP);
    assert_eq!(bench.counted(Hook::Xdp, Some(DropReason::NoLocalBackend)).unwrap(), 1);
}

#[test]
fn packets_for_other_nodes_are_encapsulated_before_the_stack() {
    let netns = underlay();
    netns
        .within(|| {
            for dsr in [false, true] {
                before_the_stack::<Ipv4Addr>(dsr);
                before_the_stack::<Ipv6Addr>(dsr);
            }
            Ok(())
        })
        .unwrap();
}
