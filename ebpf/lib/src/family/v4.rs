//! IPv4 (RFC 791).

use skep_abi::{Be16, DropReason, V4, layout};

use super::{Family, parse_l4, quoted_l4};
use crate::{
    frame::{Content, Frame},
    packet::{ETH_LEN, Packet},
};

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

const FRAGMENT_OFFSET: u16 = 0x1fff;
const MORE_FRAGMENTS: u16 = 0x2000;
const REDIRECT: u8 = 5;

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

    #[inline(never)]
    fn parse<P: Packet>(packet: &P, frame: &mut Frame<Self>) -> Result<(), DropReason> {
        let header: Ipv4Header = packet.read(ETH_LEN).ok_or(DropReason::Malformed)?;
        let words = u32::from(header.version_ihl & 0xf);
        if header.version_ihl >> 4 != 4 || words < 5 {
            return Err(DropReason::Malformed);
        }
        let fragment = header.fragment.get();
        *frame = Frame::new(header.src, header.dst, header.protocol, ETH_LEN + words * 4);
        if fragment & (FRAGMENT_OFFSET | MORE_FRAGMENTS) != 0 {
            frame.is_fragment = true;
            frame.id = u32::from(header.id.raw());
        }
        if fragment & FRAGMENT_OFFSET != 0 {
            frame.content = Content::Fragment;
            return Ok(());
        }
        parse_l4(packet, frame).ok_or(DropReason::Malformed)
    }

    #[inline(always)]
    fn parse_quoted<P: Packet>(packet: &P, at: u32, frame: &mut Frame<Self>) -> Option<()> {
        let header: Ipv4Header = packet.read(at)?;
        if header.version_ihl != 0x45 || header.fragment.get() & FRAGMENT_OFFSET != 0 {
            return None;
        }
        *frame = Frame::new(header.src, header.dst, header.protocol, at + Self::HEADER_LEN);
        quoted_l4(packet, frame)
    }

    #[inline(always)]
    fn icmp_content(kind: u8) -> Content {
        match kind {
            REDIRECT => Content::Redirect,
            3 | 4 | 11 | 12 => Content::Error,
            _ => Content::Opaque,
        }
    }
}
