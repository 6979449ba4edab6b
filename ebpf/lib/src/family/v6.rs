//! IPv6 (RFC 8200), with the extension headers that may come before L4.

use skep_abi::{Be16, DropReason, V6, layout};

use super::{Family, parse_l4, quoted_l4};
use crate::{
    frame::{Content, Frame},
    packet::{ETH_LEN, Packet},
};

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

/// What every extension header starts with.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extension {
    /// What follows.
    next: u8,
    /// Length in units of eight bytes, without the first; meaningless for fragments.
    length: u8,
    /// Fragments: offset and flags. Routing: type and segments left.
    field: Be16,
    /// Fragments: identification.
    id: u32,
}

layout!(Extension, size = 8, fields = [next: u8, length: u8, field: Be16, id: u32]);

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// More extension headers than this are refused: RFC 8200 knows no use for them.
const MAX_EXTENSIONS: u32 = 4;
/// L4 must start before this: what programs read of a packet is bounded.
const MAX_L4: u32 = 256;

const MORE_FRAGMENTS: u16 = 1;
const FRAGMENT_OFFSET: u16 = 0xfff8;
const SEGMENTS_LEFT: u16 = 0xff;

const ROUTER_SOLICITATION: u8 = 133;
const REDIRECT: u8 = 137;

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

    #[inline(never)]
    fn parse<P: Packet>(packet: &P, frame: &mut Frame<Self>) -> Result<(), DropReason> {
        let header: Ipv6Header = packet.read(ETH_LEN).ok_or(DropReason::Malformed)?;
        if header.version[0] >> 4 != 6 {
            return Err(DropReason::Malformed);
        }
        *frame = Frame::new(header.src, header.dst, header.next, ETH_LEN + Self::HEADER_LEN);
        if is_extension(frame.protocol) {
            walk(packet, frame)?;
            if frame.content == Content::Fragment {
                return Ok(());
            }
        }
        parse_l4(packet, frame).ok_or(DropReason::Malformed)
    }

    #[inline(always)]
    fn parse_quoted<P: Packet>(packet: &P, at: u32, frame: &mut Frame<Self>) -> Option<()> {
        let header: Ipv6Header = packet.read(at)?;
        *frame = Frame::new(header.src, header.dst, header.next, at + Self::HEADER_LEN);
        quoted_l4(packet, frame)
    }

    #[inline(always)]
    fn icmp_content(kind: u8) -> Content {
        match kind {
            0..128 => Content::Error,
            ROUTER_SOLICITATION..REDIRECT => Content::Neighbour,
            REDIRECT => Content::Redirect,
            _ => Content::Opaque,
        }
    }
}

#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
}

/// Finds L4 behind the extension headers.
#[inline(never)]
fn walk<P: Packet>(packet: &P, frame: &mut Frame<V6>) -> Result<(), DropReason> {
    for _ in 0..MAX_EXTENSIONS {
        let extension: Extension = packet.read(frame.l4).ok_or(DropReason::Malformed)?;
        let field = extension.field.get();
        let mut length = 8 + u32::from(extension.length) * 8;
        if frame.protocol == FRAGMENT {
            length = 8;
            if field & (FRAGMENT_OFFSET | MORE_FRAGMENTS) != 0 {
                frame.is_fragment = true;
                frame.id = extension.id;
            }
            if field & FRAGMENT_OFFSET != 0 {
                frame.content = Content::Fragment;
            }
        }
        // The packet's last destination is in the header: whoever checks addresses would look at the wrong one.
        if frame.protocol == ROUTING && field & SEGMENTS_LEFT != 0 {
            return Err(DropReason::ExtensionHeaders);
        }
        frame.protocol = extension.next;
        frame.l4 += length;
        if frame.l4 > MAX_L4 {
            return Err(DropReason::ExtensionHeaders);
        }
        if frame.content == Content::Fragment || !is_extension(frame.protocol) {
            return Ok(());
        }
    }
    Err(DropReason::ExtensionHeaders)
}
