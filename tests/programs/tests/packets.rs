//! Packets through the loaded programs: verdict, bytes with verified checksums, conntrack. Needs root and objects.

#![allow(clippy::unwrap_used, reason = "what a test builds on must work")]

use std::net::Ipv4Addr;

use skep_abi::{
    CtState, Hook,
    programs::{FROM_HOST, FROM_POD, TO_POD},
};
use skep_model::Protocol;
use skep_test_programs::{
    Bench, Crafted, Segment,
    bench::{
        DROP, GATEWAY, HOST_MAC, NEIGHBOUR, NEIGHBOUR_HOST_MAC, NEIGHBOUR_MAC, NET_MAC, NODE, PASS, POD,
        POD_HOST_MAC, POD_MAC, REDIRECT, REMOTE_POD, VIP,
    },
    craft::{self, ACK, FIN, SYN},
};

fn bench() -> Bench {
    Bench::new().unwrap_or_else(|error| panic!("{error:#}"))
}

fn from_pod(dst: Ipv4Addr, segment: Segment) -> Crafted {
    Crafted::new(POD_MAC, POD_HOST_MAC, POD, dst, segment)
}

fn tcp(from: u16, to: u16, flags: u8) -> Segment {
    Segment::Tcp(from, to, flags, b"payload".to_vec())
}

#[test]
fn a_packet_to_a_neighbour_is_redirected_with_the_neighbours_link_addresses() {
    let bench = bench();
    let (verdict, packet) = bench.pass(&FROM_POD, &from_pod(NEIGHBOUR, tcp(4000, 80, SYN))).unwrap();
    assert_eq!(verdict, REDIRECT);
    assert_eq!((packet.dst_mac, packet.src_mac), (NEIGHBOUR_MAC, NEIGHBOUR_HOST_MAC));
    assert_eq!((packet.src, packet.dst), (POD, NEIGHBOUR));
    let flows = bench.datapath().conntrack().unwrap();
    assert_eq!(flows.len(), 1);
    assert_eq!((flows[0].source.to_string(), flows[0].state), ("10.244.0.5:4000".into(), CtState::Opening));
    assert_eq!(bench.counted(Hook::FromPod, None).unwrap(), 1);
}

#[test]
fn a_packet_to_the_node_goes_to_the_stack_unchanged() {
    let bench = bench();
    let sent = from_pod(NODE, tcp(4000, 6443, SYN));
    assert_eq!(bench.pass(&FROM_POD, &sent).unwrap(), (PASS, sent));
}

#[test]
fn a_packet_to_a_remote_pod_is_redirected_to_the_tunnel() {
    let bench = bench();
    let (verdict, packet) = bench.pass(&FROM_POD, &from_pod(REMOTE_POD, tcp(4000, 80, SYN))).unwrap();
    assert_eq!((verdict, packet.dst), (REDIRECT, REMOTE_POD));
}

/// Out by the sender's hook, back by the backend's; every segment kind with its checksum.
fn there_and_back(segment: impl Fn(u16, u16) -> Segment, protocol: Protocol) {
    let bench = bench();
    bench.service(1, protocol, 80, &[(POD, 8080)]).unwrap();
    let asked = Crafted::new(HOST_MAC, NET_MAC, GATEWAY, VIP, segment(4000, 80));
    let (verdict, arrived) = bench.pass(&FROM_HOST, &asked).unwrap();
    assert_eq!((verdict, arrived.dst, arrived.dst_mac), (REDIRECT, POD, POD_MAC));
    assert_eq!(arrived.segment, segment(4000, 8080));
    let answer = from_pod(GATEWAY, segment(8080, 4000));
    let (verdict, answered) = bench.pass(&FROM_POD, &answer).unwrap();
    assert_eq!((verdict, answered.src, answered.dst_mac), (REDIRECT, VIP, HOST_MAC));
    assert_eq!(answered.segment, segment(80, 4000));
}

#[test]
fn a_service_over_tcp_is_translated_there_and_back() {
    there_and_back(|from, to| tcp(from, to, ACK), Protocol::Tcp);
}

#[test]
fn a_service_over_udp_is_translated_there_and_back() {
    there_and_back(|from, to| Segment::Udp(from, to, b"odd".to_vec()), Protocol::Udp);
}

#[test]
fn a_udp_packet_without_checksum_stays_without() {
    there_and_back(|from, to| Segment::UdpNoChecksum(from, to, b"none".to_vec()), Protocol::Udp);
}

#[test]
fn options_move_the_ports_and_nothing_else() {
    let bench = bench();
    bench.service(1, Protocol::Tcp, 80, &[(NEIGHBOUR, 8080)]).unwrap();
    for words in [1, 10] {
        let mut sent = from_pod(VIP, tcp(4000 + words, 80, SYN));
        sent.options = vec![1; usize::from(words) * 4];
        let (verdict, packet) = bench.pass(&FROM_POD, &sent).unwrap();
        assert_eq!(
            (verdict, packet.dst, packet.options.len()),
            (REDIRECT, NEIGHBOUR, usize::from(words) * 4)
        );
        assert_eq!(packet.segment, tcp(4000 + words, 8080, SYN));
    }
}

#[test]
fn fragments_of_a_datagram_to_a_service_stay_together() {
    let bench = bench();
    bench.service(1, Protocol::Udp, 53, &[(NEIGHBOUR, 5353)]).unwrap();
    let whole = from_pod(VIP, Segment::Udp(4000, 53, vec![7; 64]));
    let udp = whole.ip_bytes()[20..].to_vec();
    let fragment = |field, bytes: &[u8]| {
        let mut packet = from_pod(VIP, Segment::Raw(17, bytes.to_vec()));
        (packet.id, packet.fragment) = (9, field);
        packet
    };
    let (verdict, first) = bench.pass(&FROM_POD, &fragment(0x2000, &udp[..48])).unwrap();
    assert_eq!((verdict, first.dst), (REDIRECT, NEIGHBOUR));
    let (verdict, second) = bench.pass(&FROM_POD, &fragment(6, &udp[48..])).unwrap();
    assert_eq!((verdict, second.dst), (REDIRECT, NEIGHBOUR));
    // Put together again, the datagram is what the backend expects, with a checksum that holds.
    let (Segment::Raw(_, mut bytes), Segment::Raw(_, rest)) = (first.segment, second.segment) else {
        panic!("fragments are raw")
    };
    bytes.extend(rest);
    let joined = Crafted::new(POD_MAC, POD_HOST_MAC, POD, NEIGHBOUR, Segment::Raw(17, bytes));
    let joined = Crafted::<Ipv4Addr>::parse_ip(&joined.ip_bytes()).unwrap();
    assert_eq!(joined.segment, Segment::Udp(4000, 5353, vec![7; 64]));
}

#[test]
fn an_icmp_error_about_a_translated_packet_is_translated_too() {
    let bench = bench();
    bench.service(1, Protocol::Udp, 53, &[(POD, 5353)]).unwrap();
    let asked = Crafted::new(HOST_MAC, NET_MAC, GATEWAY, VIP, Segment::Udp(4000, 53, b"ask".to_vec()));
    let (_, arrived) = bench.pass(&FROM_HOST, &asked).unwrap();
    let refused = from_pod(GATEWAY, Segment::Icmp(3, 3, [0; 4], arrived.ip_bytes()));
    let (verdict, error) = bench.pass(&FROM_POD, &refused).unwrap();
    assert_eq!((verdict, error.src), (REDIRECT, VIP));
    let Segment::Icmp(3, 3, _, quote) = error.segment else { panic!("{error:?}") };
    // The quoted UDP checksum is left alone; the header's and the addresses are those of the question.
    assert_eq!(quote[..20], asked.ip_bytes()[..20]);
    assert_eq!(quote[20..24], asked.ip_bytes()[20..24]);
}

#[test]
fn a_connections_end_is_seen_from_both_directions() {
    let bench = bench();
    let up = |flags| Crafted::new(POD_MAC, POD_HOST_MAC, POD, NODE, tcp(4000, 6443, flags));
    let down = |flags| Crafted::new(POD_HOST_MAC, POD_MAC, NODE, POD, tcp(6443, 4000, flags));
    let state = |bench: &Bench| bench.datapath().conntrack().unwrap()[0].state;
    bench.pass(&FROM_POD, &up(SYN)).unwrap();
    assert_eq!(bench.pass(&TO_POD, &down(SYN | ACK)).unwrap().0, PASS);
    assert_eq!(state(&bench), CtState::Established);
    bench.pass(&FROM_POD, &up(FIN | ACK)).unwrap();
    assert_eq!(state(&bench), CtState::HalfClosed);
    bench.pass(&TO_POD, &down(FIN | ACK)).unwrap();
    assert_eq!(state(&bench), CtState::Closed);
    assert_eq!(bench.datapath().conntrack().unwrap().len(), 1);
}

#[test]
fn the_gateway_answers_arp_with_the_host_side_of_the_veth() {
    let bench = bench();
    let asked = craft::arp(1, POD_MAC, POD, [0; 6], GATEWAY);
    let outcome = bench.run(&FROM_POD, &asked).unwrap();
    assert_eq!(outcome.verdict, REDIRECT);
    let mut expected = craft::arp(2, POD_HOST_MAC, GATEWAY, POD_MAC, POD);
    expected[..6].copy_from_slice(&POD_MAC);
    assert_eq!(outcome.bytes, expected);
    let answer = craft::arp(2, POD_MAC, POD, POD_HOST_MAC, GATEWAY);
    assert_eq!(bench.run(&FROM_POD, &answer).unwrap().verdict, PASS);
}

#[test]
fn backends_share_new_flows() {
    let bench = bench();
    bench.service(1, Protocol::Udp, 53, &[(NEIGHBOUR, 1), (REMOTE_POD, 2)]).unwrap();
    let mut counts = [0; 2];
    for port in 0..400 {
        let sent = from_pod(VIP, Segment::Udp(10_000 + port, 53, b"x".to_vec()));
        let (_, packet) = bench.pass(&FROM_POD, &sent).unwrap();
        counts[usize::from(packet.dst == REMOTE_POD)] += 1;
    }
    assert!(counts.iter().all(|count| *count > 120), "{counts:?}");
}

#[test]
fn a_segment_that_ends_inside_its_header_is_dropped() {
    let bench = bench();
    let whole = from_pod(NEIGHBOUR, tcp(1, 2, SYN)).bytes();
    // The kernel itself refuses test runs of packets without a whole IP header.
    for length in 34..46 {
        assert_eq!(bench.run(&FROM_POD, &whole[..length]).unwrap().verdict, DROP, "{length} bytes");
    }
}
