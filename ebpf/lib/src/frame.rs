//! A parsed packet, of either family.

use skep_abi::{Addr, Be16, FragmentKey, FragmentValue, TcpSeen, layout};

use crate::{conntrack::Target, packet::Packet};

/// TCP's protocol number.
pub const TCP: u8 = 6;
/// UDP's protocol number.
pub const UDP: u8 = 17;
/// SCTP's protocol number (RFC 9260). Its ports lie where TCP's do, but its checksum cannot follow a change of them.
pub const SCTP: u8 = 132;

/// What an IP packet carries, as far as flows are concerned.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// TCP, UDP or SCTP: ports are where they usually are.
    Ports,
    /// ICMP echo: the identifier stands for the asking side's port.
    Echo,
    /// An ICMP error about another packet.
    Error,
    /// An ICMP redirect.
    Redirect,
    /// ICMPv6 router and neighbour discovery (RFC 4861), without redirects.
    Neighbour,
    /// A later fragment: ports are known from the first one, but are not in the packet.
    Fragment,
    /// Anything else: a flow is its addresses and protocol.
    Opaque,
}

/// A parsed packet. Offsets are from the Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port as far as flows are concerned.
    pub src_port: Be16,
    /// Destination port as far as flows are concerned.
    pub dst_port: Be16,
    /// Protocol number.
    pub protocol: u8,
    /// What TCP flags the segment shows.
    pub tcp: TcpSeen,
    /// A segment that opens a connection: SYN without ACK.
    pub opens: bool,
    /// What is carried.
    pub content: Content,
    /// Where L4 starts.
    pub l4: u32,
    /// Identification of the datagram that it is a fragment of.
    pub id: u32,
    /// Whether it is a fragment of a datagram.
    pub is_fragment: bool,
}

impl<A: Addr> Frame<A> {
    /// A frame without L4 yet.
    #[inline(always)]
    pub fn new(src: A, dst: A, protocol: u8, l4: u32) -> Self {
        Self {
            src,
            dst,
            src_port: Be16::ZERO,
            dst_port: Be16::ZERO,
            protocol,
            tcp: TcpSeen::ANY,
            opens: false,
            content: Content::Opaque,
            l4,
            id: 0,
            is_fragment: false,
        }
    }

    /// Where the packet goes.
    #[inline(always)]
    pub fn destination(&self) -> Target<A> {
        Target { addr: self.dst, port: self.dst_port }
    }

    /// The key under which the ports of a fragmented datagram are remembered.
    #[inline(always)]
    pub fn fragment_key(&self) -> FragmentKey<A> {
        FragmentKey { src: self.src, dst: self.dst, id: self.id, protocol: u32::from(self.protocol) }
    }

    /// The ports as a value to remember.
    #[inline(always)]
    pub fn ports(&self) -> FragmentValue {
        FragmentValue { src_port: self.src_port, dst_port: self.dst_port }
    }
}

/// The first four bytes of TCP, UDP and SCTP.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Source.
    pub src: Be16,
    /// Destination.
    pub dst: Be16,
}

layout!(Ports, size = 4, fields = [src: Be16, dst: Be16]);

/// The first eight bytes of ICMP; identifier and sequence are meaningful for echo only.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpHeader {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum.
    pub checksum: Be16,
    /// Identifier of an echo.
    pub id: Be16,
    /// Sequence number of an echo.
    pub sequence: Be16,
}

layout!(IcmpHeader, size = 8, fields = [kind: u8, code: u8, checksum: Be16, id: Be16, sequence: Be16]);

const TCP_FLAGS_AT: u32 = 13;
const FIN: u8 = 1;
const SYN: u8 = 1 << 1;
const RST: u8 = 1 << 2;
const ACK: u8 = 1 << 4;

/// What a TCP segment's flags show, and whether it opens a connection.
#[inline(always)]
pub fn tcp_seen<P: Packet>(packet: &P, l4: u32) -> Option<(TcpSeen, bool)> {
    let flags: u8 = packet.read(l4 + TCP_FLAGS_AT)?;
    let mut seen = TcpSeen::ANY;
    if flags & FIN != 0 {
        seen = seen.with(TcpSeen::FIN);
    }
    if flags & RST != 0 {
        seen = seen.with(TcpSeen::RST);
    }
    seen = if flags & SYN != 0 { seen.with(TcpSeen::SYN) } else { seen.with(TcpSeen::MORE) };
    Some((seen, flags & (SYN | ACK) == SYN))
}
