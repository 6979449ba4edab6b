//! What differs between IPv4 (RFC 791) and IPv6 (RFC 8200): headers and offsets.

use skep_abi::{Addr, Be16, DropReason, TcpSeen, V4, V6, layout};

use crate::{
    frame::{Content, Frame, IcmpHeader, Ports, TCP, UDP, tcp_seen},
    packet::{ETH_LEN, Packet},
};

/// An address family: where things are in its headers.
pub trait Family: Addr {
    /// Ethernet type.
    const ETHERTYPE: u16;
    /// Protocol number of its ICMP.
    const ICMP: u8;
    /// Whether its ICMP checksum covers a pseudo header.
    const ICMP_PSEUDO: bool;
    /// Offset of the source address.
    const SRC_AT: u32;
    /// Offset of the destination address.
    const DST_AT: u32;
    /// Offset of the header checksum, if there is one.
    const CHECKSUM_AT: Option<u32>;
    /// Type of an echo request.
    const ECHO_REQUEST: u8;
    /// Type of an echo reply.
    const ECHO_REPLY: u8;
    /// Length of a header without options.
    const HEADER_LEN: u32;

    /// Parses an IP packet.
    ///
    /// # Errors
    /// [`DropReason::Malformed`].
    fn parse<P: Packet>(packet: &P) -> Result<Frame<Self>, DropReason>;

    /// Parses the packet quoted by an ICMP error: addresses and ports only. Its header must be without options.
    fn parse_quoted<P: Packet>(packet: &P, at: u32) -> Option<Frame<Self>>;

    /// Whether an ICMP type reports an error about a quoted packet.
    fn is_icmp_error(kind: u8) -> bool;
}

/// An IPv4 header without options.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Header {
    /// Version and header length in words.
    pub version_ihl: u8,
    /// Type of service.
    pub tos: u8,
    /// Length with this header.
    pub length: Be16,
    /// Identification.
    pub id: Be16,
    /// Fragment flags and offset.
    pub fragment: Be16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol.
    pub protocol: u8,
    /// Header checksum.
    pub checksum: Be16,
    /// Source.
    pub src: V4,
    /// Destination.
    pub dst: V4,
}

layout!(Ipv4Header, size = 20, fields = [
    version_ihl: u8, tos: u8, length: Be16, id: Be16, fragment: Be16, ttl: u8, protocol: u8, checksum: Be16, src: V4,
    dst: V4,
]);

/// An IPv6 header.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Header {
    /// Version, traffic class, flow label.
    pub version: [u8; 4],
    /// Length of what follows.
    pub length: Be16,
    /// What follows.
    pub next: u8,
    /// Hop limit.
    pub hops: u8,
    /// Source.
    pub src: V6,
    /// Destination.
    pub dst: V6,
}

layout!(Ipv6Header, size = 40, fields = [version: [u8; 4], length: Be16, next: u8, hops: u8, src: V6, dst: V6]);

const FRAGMENT_OFFSET: u16 = 0x1fff;
const MORE_FRAGMENTS: u16 = 0x2000;

impl Family for V4 {
    const ETHERTYPE: u16 = crate::packet::ETHERTYPE_IPV4;
    const ICMP: u8 = 1;
    const ICMP_PSEUDO: bool = false;
    const SRC_AT: u32 = ETH_LEN + 12;
    const DST_AT: u32 = ETH_LEN + 16;
    const CHECKSUM_AT: Option<u32> = Some(ETH_LEN + 10);
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REPLY: u8 = 0;
    const HEADER_LEN: u32 = 20;

    #[inline(always)]
    fn parse<P: Packet>(packet: &P) -> Result<Frame<Self>, DropReason> {
        let header: Ipv4Header = packet.read(ETH_LEN).ok_or(DropReason::Malformed)?;
        let words = u32::from(header.version_ihl & 0xf);
        if header.version_ihl >> 4 != 4 || words < 5 {
            return Err(DropReason::Malformed);
        }
        let fragment = header.fragment.get();
        let mut frame = Frame {
            src: header.src,
            dst: header.dst,
            src_port: Be16::ZERO,
            dst_port: Be16::ZERO,
            protocol: header.protocol,
            tcp: TcpSeen::ANY,
            opens: false,
            content: Content::Opaque,
            l4: ETH_LEN + words * 4,
            fragment: None,
        };
        if fragment & (FRAGMENT_OFFSET | MORE_FRAGMENTS) != 0 {
            frame.fragment = Some(u32::from(header.id.raw()));
        }
        if fragment & FRAGMENT_OFFSET != 0 {
            frame.content = Content::Fragment;
            return Ok(frame);
        }
        parse_l4(packet, &mut frame).ok_or(DropReason::Malformed)?;
        Ok(frame)
    }

    #[inline(always)]
    fn parse_quoted<P: Packet>(packet: &P, at: u32) -> Option<Frame<Self>> {
        let header: Ipv4Header = packet.read(at)?;
        if header.version_ihl != 0x45 || header.fragment.get() & FRAGMENT_OFFSET != 0 {
            return None;
        }
        let l4 = at + Self::HEADER_LEN;
        quoted_l4(packet, header.src, header.dst, header.protocol, l4)
    }

    #[inline(always)]
    fn is_icmp_error(kind: u8) -> bool {
        matches!(kind, 3 | 4 | 5 | 11 | 12)
    }
}

impl Family for V6 {
    const ETHERTYPE: u16 = crate::packet::ETHERTYPE_IPV6;
    const ICMP: u8 = 58;
    const ICMP_PSEUDO: bool = true;
    const SRC_AT: u32 = ETH_LEN + 8;
    const DST_AT: u32 = ETH_LEN + 24;
    const CHECKSUM_AT: Option<u32> = None;
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;
    const HEADER_LEN: u32 = 40;

    #[inline(always)]
    fn parse<P: Packet>(packet: &P) -> Result<Frame<Self>, DropReason> {
        let header: Ipv6Header = packet.read(ETH_LEN).ok_or(DropReason::Malformed)?;
        if header.version[0] >> 4 != 6 {
            return Err(DropReason::Malformed);
        }
        let mut frame = Frame {
            src: header.src,
            dst: header.dst,
            src_port: Be16::ZERO,
            dst_port: Be16::ZERO,
            protocol: header.next,
            tcp: TcpSeen::ANY,
            opens: false,
            content: Content::Opaque,
            l4: ETH_LEN + Self::HEADER_LEN,
            fragment: None,
        };
        parse_l4(packet, &mut frame).ok_or(DropReason::Malformed)?;
        Ok(frame)
    }

    #[inline(always)]
    fn parse_quoted<P: Packet>(packet: &P, at: u32) -> Option<Frame<Self>> {
        let header: Ipv6Header = packet.read(at)?;
        quoted_l4(packet, header.src, header.dst, header.next, at + Self::HEADER_LEN)
    }

    #[inline(always)]
    fn is_icmp_error(kind: u8) -> bool {
        kind < 128
    }
}

#[inline(always)]
fn parse_l4<A: Family, P: Packet>(packet: &P, frame: &mut Frame<A>) -> Option<()> {
    if frame.protocol == TCP || frame.protocol == UDP {
        let ports: Ports = packet.read(frame.l4)?;
        frame.src_port = ports.src;
        frame.dst_port = ports.dst;
        frame.content = Content::Ports;
        if frame.protocol == TCP {
            let (seen, opens) = tcp_seen(packet, frame.l4)?;
            frame.tcp = seen;
            frame.opens = opens;
        }
    } else if frame.protocol == A::ICMP {
        let icmp: IcmpHeader = packet.read(frame.l4)?;
        if icmp.kind == A::ECHO_REQUEST {
            frame.src_port = icmp.id;
            frame.content = Content::Echo;
        } else if icmp.kind == A::ECHO_REPLY {
            frame.dst_port = icmp.id;
            frame.content = Content::Echo;
        } else if A::is_icmp_error(icmp.kind) {
            frame.content = Content::Error;
        }
    }
    Some(())
}

#[inline(always)]
fn quoted_l4<A: Family, P: Packet>(packet: &P, src: A, dst: A, protocol: u8, l4: u32) -> Option<Frame<A>> {
    let mut frame = Frame {
        src,
        dst,
        src_port: Be16::ZERO,
        dst_port: Be16::ZERO,
        protocol,
        tcp: TcpSeen::default(),
        opens: false,
        content: Content::Opaque,
        l4,
        fragment: None,
    };
    if protocol == TCP || protocol == UDP {
        let ports: Ports = packet.read(l4)?;
        frame.src_port = ports.src;
        frame.dst_port = ports.dst;
        frame.content = Content::Ports;
    } else if protocol == A::ICMP {
        let icmp: IcmpHeader = packet.read(l4)?;
        if icmp.kind == A::ECHO_REQUEST {
            frame.src_port = icmp.id;
        } else if icmp.kind == A::ECHO_REPLY {
            frame.dst_port = icmp.id;
        } else {
            return None;
        }
        frame.content = Content::Echo;
    }
    Some(frame)
}
