//! Rewrites addresses and ports, checksums included.

use skep_abi::Be16;

use crate::{
    conntrack::Target,
    family::Family,
    frame::{Content, Frame, SCTP, TCP, UDP},
    packet::{ChecksumFix, Packet},
};

/// Which end of a packet is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Source address and port.
    Source,
    /// Destination address and port.
    Destination,
}

/// Offset of the L4 checksum, and whether it is UDP's.
#[inline(always)]
fn l4_checksum<A: Family>(frame: &Frame<A>) -> Option<(u32, bool, bool)> {
    if frame.content == Content::Fragment {
        return None;
    }
    match frame.protocol {
        TCP => Some((frame.l4 + 16, true, false)),
        UDP => Some((frame.l4 + 6, true, true)),
        protocol if protocol == A::ICMP => Some((frame.l4 + 2, A::ICMP_PSEUDO, false)),
        _ => None,
    }
}

/// Rewrites one end of a packet and of its frame. `None`: the packet ended early.
#[inline(always)]
pub fn rewrite<A: Family, P: Packet>(
    packet: &mut P,
    frame: &mut Frame<A>,
    end: End,
    to: &Target<A>,
) -> Option<()> {
    let (at, from) = match end {
        End::Source => (A::SRC_AT, frame.src),
        End::Destination => (A::DST_AT, frame.dst),
    };
    packet.write(at, to.addr)?;
    let (old, new) = (from.words(), to.addr.words());
    if let Some(checksum) = A::CHECKSUM_AT {
        packet.fix_l3(checksum, old[0], new[0])?;
    }
    if let Some((at, pseudo, udp)) = l4_checksum(frame)
        && pseudo
    {
        let fix = |from, to| ChecksumFix { at, from, to, size: 4, pseudo: true, udp };
        packet.fix_l4(fix(old[0], new[0]))?;
        if A::BITS == 128 {
            packet.fix_l4(fix(old[1], new[1]))?;
            packet.fix_l4(fix(old[2], new[2]))?;
            packet.fix_l4(fix(old[3], new[3]))?;
        }
    }
    rewrite_port(packet, frame, end, to.port)?;
    match end {
        End::Source => frame.src = to.addr,
        End::Destination => frame.dst = to.addr,
    }
    Some(())
}

#[inline(always)]
fn rewrite_port<A: Family, P: Packet>(
    packet: &mut P,
    frame: &mut Frame<A>,
    end: End,
    to: Be16,
) -> Option<()> {
    let (at, from) = match end {
        End::Source => (frame.l4, frame.src_port),
        End::Destination => (frame.l4 + 2, frame.dst_port),
    };
    if frame.content == Content::Ports && from != to {
        if frame.protocol == SCTP {
            return None;
        }
        packet.write(at, to)?;
        if let Some((at, _, udp)) = l4_checksum(frame) {
            let (from, to) = (u32::from(from.raw()), u32::from(to.raw()));
            packet.fix_l4(ChecksumFix { at, from, to, size: 2, pseudo: false, udp })?;
        }
    }
    match end {
        End::Source => frame.src_port = to,
        End::Destination => frame.dst_port = to,
    }
    Some(())
}
