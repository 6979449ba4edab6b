//! What differs between IPv4 (RFC 791) and IPv6 (RFC 8200): headers and offsets.

use skep_abi::{Addr, DropReason};

use crate::{
    frame::{Content, Frame, IcmpHeader, Ports, SCTP, TCP, UDP, tcp_seen},
    packet::Packet,
};

mod v4;
mod v6;

pub use v4::Ipv4Header;
pub use v6::Ipv6Header;

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

    /// Parses an IP packet into a frame.
    ///
    /// # Errors
    /// [`DropReason::Malformed`], [`DropReason::ExtensionHeaders`].
    fn parse<P: Packet>(packet: &P, frame: &mut Frame<Self>) -> Result<(), DropReason>;

    /// Parses the packet quoted by an ICMP error at an offset: addresses and ports only. Its header must be without
    /// options. `None`: it can belong to no flow.
    fn parse_quoted<P: Packet>(packet: &P, at: u32, frame: &mut Frame<Self>) -> Option<()>;

    /// What an ICMP message that is no echo is about.
    fn icmp_content(kind: u8) -> Content;
}

#[inline(always)]
const fn has_ports(protocol: u8) -> bool {
    protocol == TCP || protocol == UDP || protocol == SCTP
}

#[inline(always)]
fn parse_l4<A: Family, P: Packet>(packet: &P, frame: &mut Frame<A>) -> Option<()> {
    if has_ports(frame.protocol) {
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
        } else {
            frame.content = A::icmp_content(icmp.kind);
        }
    }
    Some(())
}

/// Reads the ports of a quoted packet.
#[inline(always)]
fn quoted_l4<A: Family, P: Packet>(packet: &P, frame: &mut Frame<A>) -> Option<()> {
    if has_ports(frame.protocol) {
        let ports: Ports = packet.read(frame.l4)?;
        frame.src_port = ports.src;
        frame.dst_port = ports.dst;
        frame.content = Content::Ports;
    } else if frame.protocol == A::ICMP {
        let icmp: IcmpHeader = packet.read(frame.l4)?;
        if icmp.kind == A::ECHO_REQUEST {
            frame.src_port = icmp.id;
        } else if icmp.kind == A::ECHO_REPLY {
            frame.dst_port = icmp.id;
        } else {
            return None;
        }
        frame.content = Content::Echo;
    }
    Some(())
}

#[cfg(test)]
mod tests;
