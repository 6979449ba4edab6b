//! Neighbour discovery (RFC 4861) as pods see it: one router with one link-layer address answers for all.
//!
//! User space sets permanent neighbours on both sides, so that nobody needs to ask. This is for pods that lost theirs,
//! and against pods that pretend to be somebody.

use skep_abi::{Be16, DropReason, Endpoint, layout};

use crate::{
    family::Family,
    frame::Frame,
    hooks::Action,
    packet::{ChecksumFix, ETH_LEN, EthHeader, Packet, set_macs},
};

const ROUTER_ADVERTISEMENT: u8 = 134;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// Offset of the hop limit.
const HOPS_AT: u32 = ETH_LEN + 7;
/// Only packets that no router has touched count.
const HOPS: u8 = 255;
/// Flags of an answer: from a router, asked for, replacing what was known.
const ANSWER_FLAGS: u32 = 0xe000_0000_u32.to_be();
/// Offset of the asked address in the message.
const TARGET_AT: u32 = 8;
/// Offset of the first option in the message.
const OPTION_AT: u32 = 24;

/// What the messages start with.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    /// Type and code.
    kind: [u8; 2],
    /// Checksum.
    checksum: Be16,
    /// Flags of an advertisement.
    flags: u32,
}

layout!(Header, size = 8, fields = [kind: [u8; 2], checksum: Be16, flags: u32]);

/// The option that carries a link-layer address, as words that a checksum can follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LinkOption {
    /// Type (1 the sender's address, 2 the asked one), length in units of eight bytes, first two bytes.
    head: [u8; 4],
    /// The other four bytes.
    tail: [u8; 4],
}

layout!(LinkOption, size = 8, fields = [head: [u8; 4], tail: [u8; 4]]);

/// A neighbour discovery message from a pod, whose source address and link-layer address are `sender`'s.
///
/// # Errors
/// [`DropReason::RouterAdvertisement`], [`DropReason::SpoofedNeighbour`], [`DropReason::Malformed`],
/// [`DropReason::RewriteFailed`].
#[inline(never)]
pub fn from_pod<A: Family, P: Packet>(
    packet: &mut P,
    frame: &Frame<A>,
    sender: &Endpoint,
) -> Result<Action, DropReason> {
    let header: Header = packet.read(frame.l4).ok_or(DropReason::Malformed)?;
    let hops: u8 = packet.read(HOPS_AT).ok_or(DropReason::Malformed)?;
    if hops != HOPS || header.kind[1] != 0 {
        return Err(DropReason::Malformed);
    }
    match header.kind[0] {
        ROUTER_ADVERTISEMENT => Err(DropReason::RouterAdvertisement),
        SOLICITATION => answer(packet, frame, &header, sender),
        ADVERTISEMENT => {
            let target: A = packet.read(frame.l4 + TARGET_AT).ok_or(DropReason::Malformed)?;
            if target == frame.src { Ok(Action::Pass) } else { Err(DropReason::SpoofedNeighbour) }
        }
        // Nobody here answers router solicitations: routes are set when the pod is made.
        _ => Err(DropReason::GroupDestination),
    }
}

/// Turns a question into its answer: the host side of the veth has the asked address.
#[inline(always)]
fn answer<A: Family, P: Packet>(
    packet: &mut P,
    frame: &Frame<A>,
    header: &Header,
    sender: &Endpoint,
) -> Result<Action, DropReason> {
    let target: A = packet.read(frame.l4 + TARGET_AT).ok_or(DropReason::Malformed)?;
    let option: LinkOption = packet.read(frame.l4 + OPTION_AT).ok_or(DropReason::Malformed)?;
    if option.head[0] != 1 || option.head[1] != 1 {
        return Err(DropReason::Malformed);
    }
    // A pod asking for its own address checks for duplicates: nobody else has it.
    if target == frame.src || target.is_group() {
        return Err(DropReason::SpoofedNeighbour);
    }
    rewrite(packet, frame, header, &option, target, sender).ok_or(DropReason::RewriteFailed)?;
    Ok(Action::Answer)
}

#[inline(always)]
fn rewrite<A: Family, P: Packet>(
    packet: &mut P,
    frame: &Frame<A>,
    header: &Header,
    option: &LinkOption,
    target: A,
    sender: &Endpoint,
) -> Option<()> {
    let asked: EthHeader = packet.read(0)?;
    let mac = sender.host_mac;
    let link = LinkOption { head: [2, 1, mac[0], mac[1]], tail: [mac[2], mac[3], mac[4], mac[5]] };
    packet.write(A::SRC_AT, target)?;
    packet.write(A::DST_AT, frame.src)?;
    packet.write(frame.l4, [ADVERTISEMENT, 0])?;
    packet.write(frame.l4 + 4, ANSWER_FLAGS)?;
    packet.write(frame.l4 + OPTION_AT, link)?;
    // The sender's address moves from one end to the other: only the group address leaves, and the target comes.
    let checksum = frame.l4 + 2;
    let (group, new) = (frame.dst.words(), target.words());
    follow(packet, checksum, group[0], new[0], true)?;
    follow(packet, checksum, group[1], new[1], true)?;
    follow(packet, checksum, group[2], new[2], true)?;
    follow(packet, checksum, group[3], new[3], true)?;
    let kind = |kind: u8| u32::from_ne_bytes([kind, 0, 0, 0]);
    follow(packet, checksum, kind(SOLICITATION), kind(ADVERTISEMENT), false)?;
    follow(packet, checksum, header.flags, ANSWER_FLAGS, false)?;
    follow(packet, checksum, u32::from_ne_bytes(option.head), u32::from_ne_bytes(link.head), false)?;
    follow(packet, checksum, u32::from_ne_bytes(option.tail), u32::from_ne_bytes(link.tail), false)?;
    set_macs(packet, asked.src, mac)
}

#[inline(always)]
fn follow<P: Packet>(packet: &mut P, at: u32, from: u32, to: u32, pseudo: bool) -> Option<()> {
    packet.fix_l4(ChecksumFix { at, from, to, size: 4, pseudo, udp: false })
}

#[cfg(test)]
mod tests;
