//! Headers in memory: IPv6 extension headers and fragments, SCTP, and checksums after any rewrite.

use std::vec::Vec;

use proptest::prelude::*;
use skep_abi::{Be16, V4, V6};

use super::*;
use crate::{
    conntrack::Target,
    fake::{FakePacket, Numbered, echo, is_sound, parsed, tcp, udp},
    nat::{End, rewrite},
};

/// Puts extension headers (type, bytes after the first) between IPv6 and L4.
fn extend(mut packet: FakePacket, headers: &[(u8, Vec<u8>)]) -> FakePacket {
    let mut chain = Vec::new();
    let l4 = packet.0[20];
    for (index, (_, body)) in headers.iter().enumerate() {
        chain.push(headers.get(index + 1).map_or(l4, |next| next.0));
        chain.extend(body);
    }
    packet.0[20] = headers[0].0;
    let length = u16::from_be_bytes([packet.0[18], packet.0[19]]) + chain.len() as u16;
    packet.0[18..20].copy_from_slice(&length.to_be_bytes());
    packet.0.splice(54..54, chain);
    packet
}

fn options(length: u8) -> Vec<u8> {
    let mut body = std::vec![length; 1];
    body.resize(7 + usize::from(length) * 8, 0);
    body
}

fn fragment(offset: u16, more: bool) -> Vec<u8> {
    let field = (offset << 3 | u16::from(more)).to_be_bytes();
    std::vec![0, field[0], field[1], 1, 2, 3, 4]
}

fn datagram() -> FakePacket {
    udp((V6::numbered(1, 1), 4000), (V6::numbered(1, 2), 53))
}

#[test]
fn ports_are_found_behind_extension_headers() {
    for headers in [
        std::vec![(0, options(0))],
        std::vec![(0, options(2)), (60, options(1))],
        std::vec![(0, options(0)), (43, std::vec![0, 0, 0, 0, 0, 0, 0]), (60, options(3)), (60, options(0))],
    ] {
        let frame = parsed::<V6>(&extend(datagram(), &headers)).unwrap();
        assert_eq!((frame.protocol, frame.src_port.get(), frame.dst_port.get()), (UDP, 4000, 53));
        assert_eq!((frame.content, frame.is_fragment), (Content::Ports, false));
    }
}

#[test]
fn a_packet_on_a_detour_or_with_too_many_headers_is_refused() {
    let detour = extend(
        datagram(),
        &[(43, std::vec![2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])],
    );
    assert_eq!(parsed::<V6>(&detour), Err(DropReason::ExtensionHeaders));
    let many: Vec<_> = (0..5).map(|_| (60, options(0))).collect();
    assert_eq!(parsed::<V6>(&extend(datagram(), &many)), Err(DropReason::ExtensionHeaders));
    let long = extend(datagram(), &[(0, options(40))]);
    assert_eq!(parsed::<V6>(&long), Err(DropReason::ExtensionHeaders));
    let mut cut = extend(datagram(), &[(0, options(4))]);
    cut.0.truncate(60);
    assert_eq!(parsed::<V6>(&cut), Err(DropReason::Malformed));
}

#[test]
fn fragments_of_ipv6_are_told_apart() {
    let first = parsed::<V6>(&extend(datagram(), &[(44, fragment(0, true))])).unwrap();
    assert_eq!((first.content, first.dst_port.get()), (Content::Ports, 53));
    assert!(first.is_fragment);
    let later = parsed::<V6>(&extend(datagram(), &[(44, fragment(100, false))])).unwrap();
    assert_eq!((later.content, later.is_fragment), (Content::Fragment, true));
    assert_eq!(first.fragment_key(), later.fragment_key());
    let whole = parsed::<V6>(&extend(datagram(), &[(44, fragment(0, false))])).unwrap();
    assert_eq!((whole.content, whole.is_fragment), (Content::Ports, false));
}

#[test]
fn sctp_has_ports_that_cannot_change() {
    let mut packet = udp((V4::numbered(1, 1), 36_412), (V4::numbered(1, 2), 36_412));
    packet.0[23] = SCTP;
    let mut frame = parsed::<V4>(&packet).unwrap();
    assert_eq!((frame.content, frame.dst_port.get()), (Content::Ports, 36_412));
    let before = packet.clone();
    let to = |port| Target { addr: V4::numbered(1, 9), port: Be16::new(port) };
    rewrite(&mut packet, &mut frame, End::Destination, &to(36_412)).unwrap();
    assert_eq!(packet.0[34..], before.0[34..], "what SCTP's checksum covers stays");
    assert_eq!(rewrite(&mut packet, &mut frame, End::Destination, &to(1)), None);
}

fn rewritten_packets_are_sound<A: Numbered>(kind: u8, steps: &[(bool, u8, u16)], extended: bool) {
    let (src, dst) = ((A::numbered(1, 1), 4000), (A::numbered(1, 2), 80));
    let mut packet = match kind {
        0 => tcp(src, dst, 16),
        1 => udp(src, dst),
        _ => echo(src.0, dst.0, A::ECHO_REQUEST, 7),
    };
    if extended && A::BITS == 128 {
        packet = extend(packet, &[(0, options(1)), (60, options(0))]);
    }
    let mut frame = parsed::<A>(&packet).unwrap();
    for (source, number, port) in steps {
        let end = if *source { End::Source } else { End::Destination };
        rewrite(
            &mut packet,
            &mut frame,
            end,
            &Target { addr: A::numbered(9, *number), port: Be16::new(*port) },
        )
        .unwrap();
        assert!(is_sound::<A>(&packet), "incremental and full checksum differ");
        let read = parsed::<A>(&packet).unwrap();
        assert_eq!((read.src, read.dst), (frame.src, frame.dst));
        if kind < 2 {
            assert_eq!((read.src_port, read.dst_port), (frame.src_port, frame.dst_port));
        }
    }
}

proptest! {
    #[test]
    fn an_incremental_checksum_equals_a_full_one_after_any_rewrites(
        kind in 0u8..3,
        steps in prop::collection::vec((any::<bool>(), any::<u8>(), any::<u16>()), 1..8),
        extended in any::<bool>(),
    ) {
        rewritten_packets_are_sound::<V4>(kind, &steps, extended);
        rewritten_packets_are_sound::<V6>(kind, &steps, extended);
    }

    /// No bytes make the IPv6 parser read beyond the end, panic, or start L4 where programs cannot look.
    #[test]
    fn any_chain_of_headers_is_parsed_within_bounds(
        next in prop::sample::select(std::vec![0u8, 43, 44, 60, 6, 17, 58, 132]),
        bytes in prop::collection::vec(any::<u8>(), 54..400),
    ) {
        let mut bytes = bytes;
        bytes[14] = 0x60;
        bytes[20] = next;
        if let Ok(frame) = parsed::<V6>(&FakePacket(bytes)) {
            prop_assert!(frame.l4 <= 256);
        }
    }
}
