//! Every reason that the programs drop for is reached and counted once, under its hook. Needs root and objects.
//!
//! Reasons that need a tunnel or a full map are reached by [`tunnel`] in namespaces; what no packet can reach yet is
//! listed with the reason why, so that nothing is left out silently.

#![allow(clippy::unwrap_used, reason = "what a test builds on must work")]

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use skep_abi::{
    DropReason, Hook,
    programs::{Classifier, FROM_HOST, FROM_OVERLAY, FROM_POD, TO_POD},
};
use skep_datapath::TestPacket;
use skep_model::Protocol;
use skep_test_programs::{
    Bench, Crafted, Segment,
    bench::{
        DROP, GATEWAY, HOST_MAC, LOOPBACK, NEIGHBOUR, NEIGHBOUR_MAC, NEIGHBOUR6, NET_MAC, NODE, POD,
        POD_HOST_MAC, POD_MAC, POD6, REMOTE_POD, VIP, VIP6, WORLD, WORLD6,
    },
    craft::{self, ACK, SYN},
};

fn bench() -> Bench {
    Bench::new().unwrap_or_else(|error| panic!("{error:#}"))
}

fn udp(from: u16, to: u16) -> Segment {
    Segment::Udp(from, to, b"data".to_vec())
}

fn from_pod(src: Ipv4Addr, dst: Ipv4Addr, segment: Segment) -> Vec<u8> {
    Crafted::new(POD_MAC, POD_HOST_MAC, src, dst, segment).bytes()
}

/// What a pod sends that must not pass, and why.
fn refused_from_pods() -> Vec<(DropReason, Vec<u8>)> {
    use DropReason as R;
    let mut vlan = from_pod(POD, NEIGHBOUR, udp(1, 2));
    vlan[12..14].copy_from_slice(&[0x88, 0xa8]);
    let mut cut = from_pod(POD, NEIGHBOUR, udp(1, 2));
    cut.truncate(36);
    let foreign_mac = Crafted::new(NEIGHBOUR_MAC, POD_HOST_MAC, POD, NEIGHBOUR, udp(1, 2)).bytes();
    let mut later = Crafted::new(POD_MAC, POD_HOST_MAC, POD, NEIGHBOUR, Segment::Raw(17, vec![0; 8]));
    later.fragment = 5;
    let quoted = |src| Crafted::new([0; 6], [0; 6], src, POD, udp(9, 9)).ip_bytes();
    let error = |quote| from_pod(POD, NEIGHBOUR, Segment::Icmp(3, 3, [0; 4], quote));
    let redirect = from_pod(POD, NEIGHBOUR, Segment::Icmp(5, 1, [0; 4], quoted(NEIGHBOUR)));
    let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
    let link_local: Ipv6Addr = "fe80::1".parse().unwrap();
    let speak = |kind, src, target| craft::neighbour(POD_MAC, kind, src, all_nodes, target);
    let six = |src, dst, segment| Crafted::new(POD_MAC, POD_HOST_MAC, src, dst, segment).bytes();
    let routing = Segment::Raw(43, [&[17, 0, 0, 1, 0, 0, 0, 0][..], &[0; 16]].concat());
    vec![
        (R::Malformed, cut),
        (R::UnsupportedProtocol, vlan),
        (R::SpoofedSource, from_pod(WORLD, NEIGHBOUR, udp(1, 2))),
        (R::SpoofedSource, from_pod(NEIGHBOUR, POD, udp(1, 2))),
        (R::SpoofedMac, foreign_mac),
        (R::SpoofedArp, craft::arp(1, POD_MAC, NEIGHBOUR, [0; 6], GATEWAY)),
        (R::SpoofedArp, craft::arp(2, NEIGHBOUR_MAC, POD, [0; 6], GATEWAY)),
        (R::DhcpServer, from_pod(POD, NEIGHBOUR, udp(67, 68))),
        (R::RouterAdvertisement, speak(134, POD6, POD6)),
        (R::SpoofedNeighbour, speak(136, POD6, NEIGHBOUR6)),
        (R::SpoofedNeighbour, speak(135, POD6, POD6)),
        (R::GroupDestination, speak(134, link_local, link_local)),
        (R::IcmpRedirect, redirect),
        (R::ExtensionHeaders, six(POD6, NEIGHBOUR6, routing)),
        (R::SpoofedSource, six(WORLD6, NEIGHBOUR6, udp(1, 2))),
        (R::SpoofedSource, six(NEIGHBOUR6, POD6, udp(1, 2))),
        (R::DhcpServer, six(POD6, NEIGHBOUR6, udp(547, 546))),
        (R::Martian, six(POD6, Ipv6Addr::LOCALHOST, udp(1, 2))),
        (R::GroupDestination, six(POD6, all_nodes, udp(5353, 5353))),
        (R::NoService, six(POD6, VIP6, udp(1, 1))),
        (R::NoRoute, six(POD6, WORLD6, udp(1, 2))),
        (R::Martian, from_pod(POD, Ipv4Addr::LOCALHOST, udp(1, 2))),
        (R::GroupDestination, from_pod(POD, Ipv4Addr::new(224, 0, 0, 251), udp(5353, 5353))),
        (R::GroupDestination, from_pod(POD, Ipv4Addr::BROADCAST, udp(68, 67))),
        (R::NoEndpoint, from_pod(POD, Ipv4Addr::new(10, 244, 0, 200), udp(1, 2))),
        (R::NoEndpoint, from_pod(POD, Ipv4Addr::new(10, 244, 9, 9), udp(1, 2))),
        (R::NoService, from_pod(POD, VIP, udp(1, 1))),
        (R::NoBackend, from_pod(POD, VIP, udp(1, 81))),
        (R::NoRoute, from_pod(POD, Ipv4Addr::new(203, 0, 113, 1), udp(1, 2))),
        (R::FragmentUnknown, later.bytes()),
        (R::UntrackedReply, error(quoted(NEIGHBOUR))),
        (R::IcmpMismatch, error(quoted(REMOTE_POD))),
    ]
}

fn prepare(bench: &Bench) {
    bench.service(1, Protocol::Udp, 81, &[]).unwrap();
}

#[track_caller]
fn expect(bench: &Bench, program: &Classifier, reason: DropReason, packet: &TestPacket<'_>) {
    let before = bench.counted(program.hook, Some(reason)).unwrap();
    let outcome = bench.datapath().test_run(program, packet).unwrap();
    assert_eq!(outcome.verdict, DROP, "{reason:?} {:?}", bench.datapath().counters());
    assert_eq!(
        bench.counted(program.hook, Some(reason)).unwrap(),
        before + 1,
        "{reason:?} {:?}",
        bench.datapath().counters()
    );
}

fn plain(bytes: &[u8]) -> TestPacket<'_> {
    TestPacket { bytes, ifindex: LOOPBACK, ..TestPacket::default() }
}

#[test]
fn every_reason_that_a_pod_can_give_is_counted_under_its_name() {
    // A namespace without any route but loopback's: the world is out of reach.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
        .unwrap_or_else(|error| panic!("needs root: {error}"));
    let bench = bench();
    prepare(&bench);
    for (reason, bytes) in refused_from_pods() {
        expect(&bench, &FROM_POD, reason, &plain(&bytes));
    }
}

#[test]
fn the_stack_cannot_bring_a_pod_what_comes_another_way() {
    let bench = bench();
    let to_pod = |src: Ipv4Addr| Crafted::new(POD_HOST_MAC, POD_MAC, src, POD, udp(1, 2)).bytes();
    fn came_in(bytes: &[u8]) -> TestPacket<'_> {
        TestPacket { bytes, ifindex: LOOPBACK, ingress_ifindex: 1, repeat: 1 }
    }
    for (reason, src) in [
        (DropReason::SpoofedSource, NODE),
        (DropReason::SpoofedSource, NEIGHBOUR),
        (DropReason::TunnelSpoofed, REMOTE_POD),
        (DropReason::PeerUnknown, Ipv4Addr::new(10, 244, 77, 7)),
        (DropReason::Martian, Ipv4Addr::LOCALHOST),
    ] {
        expect(&bench, &TO_POD, reason, &came_in(&to_pod(src)));
    }
    let stray = Crafted::new(POD_HOST_MAC, POD_MAC, NODE, NEIGHBOUR, udp(1, 2)).bytes();
    expect(&bench, &TO_POD, DropReason::NoEndpoint, &plain(&stray));
}

#[test]
fn the_node_side_pair_takes_nothing_from_strangers() {
    let bench = bench();
    let sent = |src, dst| Crafted::new(HOST_MAC, NET_MAC, src, dst, udp(1, 2)).bytes();
    expect(&bench, &FROM_HOST, DropReason::SpoofedSource, &plain(&sent(WORLD, POD)));
    expect(&bench, &FROM_HOST, DropReason::NoRoute, &plain(&sent(NODE, WORLD)));
    expect(&bench, &FROM_HOST, DropReason::Hairpin, &plain(&sent(GATEWAY, NODE)));
}

#[test]
fn a_packet_without_our_network_identifier_dies_at_the_tunnel() {
    let bench = bench();
    let bytes = Crafted::new(POD_MAC, POD_HOST_MAC, REMOTE_POD, POD, udp(1, 2)).bytes();
    expect(&bench, &FROM_OVERLAY, DropReason::UnknownVni, &plain(&bytes));
}

#[test]
fn a_translation_that_would_take_over_a_live_flow_takes_another_port_or_is_refused() {
    let mut bench = bench();
    bench.reconfigure(|node| node.nat_ports = (5000, 5000)).unwrap();
    bench.service(3, Protocol::Tcp, 83, &[(NEIGHBOUR, 8083)]).unwrap();
    let segment = |from, to, flags| Segment::Tcp(from, to, flags, Vec::new());
    let sent = |from, to, flags| {
        Crafted::new(
            POD_MAC,
            POD_HOST_MAC,
            POD,
            if to == 83 { VIP } else { NEIGHBOUR },
            segment(from, to, flags),
        )
    };
    bench.run(&FROM_POD, &sent(4000, 8083, SYN).bytes()).unwrap();
    let (_, translated) = bench.pass(&FROM_POD, &sent(4000, 83, SYN)).unwrap();
    assert_eq!((translated.src, translated.segment), (POD, segment(5000, 8083, SYN)));
    bench.run(&FROM_POD, &sent(4001, 8083, SYN).bytes()).unwrap();
    expect(&bench, &FROM_POD, DropReason::FlowConflict, &plain(&sent(4001, 83, SYN).bytes()));
    expect(&bench, &FROM_POD, DropReason::FlowConflict, &plain(&sent(4001, 83, ACK).bytes()));
}

#[test]
fn drops_are_sampled_with_who_and_why() {
    let bench = bench();
    let mut events = bench.datapath().events().unwrap();
    let bytes = from_pod(WORLD, NEIGHBOUR, udp(1234, 53));
    for _ in 0..100 {
        bench.run(&FROM_POD, &bytes).unwrap();
    }
    assert_eq!(bench.counted(Hook::FromPod, Some(DropReason::SpoofedSource)).unwrap(), 100);
    let event = events.next().unwrap();
    assert_eq!((event.reason, event.hook), (DropReason::SpoofedSource, Hook::FromPod));
    assert_eq!(event.src.unwrap().to_string(), "192.0.2.33:1234");
    assert_eq!(event.dst.unwrap().to_string(), "10.244.0.6:53");
    let mut sampled = 1;
    while events.next().is_some() {
        sampled += 1;
    }
    assert!(sampled < 20, "{sampled} events for 100 drops");
}

#[test]
fn every_reason_is_reached_here_or_its_absence_is_explained() {
    let mut reached: BTreeSet<DropReason> =
        refused_from_pods().into_iter().map(|(reason, _)| reason).collect();
    reached.extend([
        DropReason::PeerUnknown,
        DropReason::TunnelSpoofed,
        DropReason::UnknownVni,
        DropReason::FlowConflict,
        DropReason::Hairpin,
        // tests/tunnel.rs: packets out of the tunnel for somebody else, and such as pretend to be from outside.
        DropReason::NotForThisNode,
        DropReason::NotOutside,
        // tests/uplink.rs.
        DropReason::SnatExhausted,
        DropReason::SctpPort,
        DropReason::SourceRange,
        DropReason::NoLocalBackend,
    ]);
    let unreachable = [
        // An LRU map makes room; the kernel refuses only when it is out of memory. Reached in skep-packet's tests.
        DropReason::ConntrackFull,
        // No policy exists yet.
        DropReason::PolicyDenied,
        // Rewriting fails only where parsing has succeeded on bytes that are gone, or without memory.
        DropReason::RewriteFailed,
        DropReason::TunnelFailed,
    ];
    for reason in DropReason::ALL {
        assert!(reached.contains(reason) ^ unreachable.contains(reason), "{reason:?}");
    }
}
