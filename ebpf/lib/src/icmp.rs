//! ICMP errors: they belong to the flow of the packet they quote, and are translated in both directions like that flow.
//!
//! An error goes to whoever sent the quoted packet: its outer destination is the quoted source, or it is refused.

use skep_abi::{CtFlags, DropReason};

use crate::{
    conntrack::{Target, key_of},
    env::Env,
    family::Family,
    flow::{Handled, Sender},
    frame::{Content, Frame},
    nat::{End, rewrite},
    packet::{ChecksumFix, ETH_LEN, Packet},
};

const ICMP_HEADER_LEN: u32 = 8;

/// The packet that an ICMP error quotes.
///
/// # Errors
/// [`DropReason::UntrackedReply`] when it cannot belong to a flow, [`DropReason::IcmpMismatch`].
#[inline(always)]
fn quoted<A: Family, P: Packet>(packet: &P, frame: &Frame<A>) -> Result<Frame<A>, DropReason> {
    let quoted = A::parse_quoted(packet, frame.l4 + ICMP_HEADER_LEN).ok_or(DropReason::UntrackedReply)?;
    if quoted.src == frame.dst { Ok(quoted) } else { Err(DropReason::IcmpMismatch) }
}

/// Translates an ICMP error about a translated flow; errors about unknown flows are refused.
///
/// The quoted L4 checksum is left as it is: receivers match the quote by addresses and ports.
///
/// # Errors
/// [`DropReason::UntrackedReply`], [`DropReason::IcmpMismatch`], [`DropReason::RewriteFailed`].
#[inline(always)]
pub fn translate<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    frame: &mut Frame<A>,
    sender: Sender,
) -> Result<Handled, DropReason> {
    let quoted = quoted(packet, frame)?;
    // Only who got a packet may complain about it; routers do, too, but pods are none.
    if sender == Sender::Pod && quoted.dst != frame.src {
        return Err(DropReason::IcmpMismatch);
    }
    let (key, from_b) = key_of(&quoted);
    let value = env.flow(&key).ok_or(DropReason::UntrackedReply)?;
    let is_reply = value.flags.any(CtFlags::FROM_B) != from_b;
    let nat = Target { addr: value.nat_addr, port: value.nat_port };
    let peer = Target { addr: value.peer_addr, port: value.peer_port };
    let both = value.flags.any(CtFlags::SNAT);
    if value.flags.any(CtFlags::REVNAT) && !is_reply {
        // About a client's packet on its way to the backend: the client must read of the frontend, and of itself. Only
        // the backend itself hides behind the frontend; routers on the way keep their address.
        let outer = (frame.src == quoted.dst).then_some(nat.addr);
        change(packet, frame, &quoted, End::Destination, End::Source, nat, outer)?;
        if both {
            change(packet, frame, &quoted, End::Source, End::Destination, peer, Some(peer.addr))?;
        }
        return Ok(Handled::Reply);
    }
    if value.flags.any(CtFlags::DNAT) && is_reply {
        // About an answer on its way to the client: the backend must read of itself, and of whom it answered.
        change(packet, frame, &quoted, End::Source, End::Destination, nat, Some(nat.addr))?;
        if both {
            change(packet, frame, &quoted, End::Destination, End::Source, peer, Some(peer.addr))?;
        }
        return Ok(Handled::Translated);
    }
    if value.flags.any(CtFlags::FORWARDED) && is_reply {
        return Ok(Handled::Forwarded);
    }
    Ok(Handled::Plain)
}

/// The backend of the forwarded flow that an ICMP error is about.
///
/// # Errors
/// [`DropReason::UntrackedReply`], [`DropReason::IcmpMismatch`].
#[inline(always)]
pub fn forwarded_to<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &P,
    frame: &Frame<A>,
) -> Result<A, DropReason> {
    let quoted = quoted(packet, frame)?;
    let (key, _) = key_of(&quoted);
    env.flow(&key).map(|value| value.nat_addr).ok_or(DropReason::UntrackedReply)
}

/// Changes one end of the quote, and the opposite end of the error itself where `outer` says to what.
#[inline(always)]
fn change<A: Family, P: Packet>(
    packet: &mut P,
    frame: &mut Frame<A>,
    quoted: &Frame<A>,
    end: End,
    outer_end: End,
    to: Target<A>,
    outer: Option<A>,
) -> Result<(), DropReason> {
    rewrite_quote(packet, frame.l4, quoted, end, &to).ok_or(DropReason::RewriteFailed)?;
    if let Some(addr) = outer {
        let port = match outer_end {
            End::Source => frame.src_port,
            End::Destination => frame.dst_port,
        };
        rewrite(packet, frame, outer_end, Target { addr, port }).ok_or(DropReason::RewriteFailed)?;
    }
    Ok(())
}

#[inline(always)]
fn rewrite_quote<A: Family, P: Packet>(
    packet: &mut P,
    icmp: u32,
    quoted: &Frame<A>,
    end: End,
    to: &Target<A>,
) -> Option<()> {
    let at = icmp + ICMP_HEADER_LEN;
    let (addr_at, port_at, from, from_port) = match end {
        End::Source => (A::SRC_AT, 0, quoted.src, quoted.src_port),
        End::Destination => (A::DST_AT, 2, quoted.dst, quoted.dst_port),
    };
    packet.write(at + addr_at - ETH_LEN, to.addr)?;
    let checksum = icmp + 2;
    let fix = |from, to, size| ChecksumFix { at: checksum, from, to, size, pseudo: false, udp: false };
    let (old, new) = (from.words(), to.addr.words());
    if let Some(header) = A::CHECKSUM_AT {
        // The quoted header with its checksum keeps its sum, so the outer checksum does not change.
        packet.fix_l3(at + header - ETH_LEN, old[0], new[0])?;
    } else {
        packet.fix_l4(fix(old[0], new[0], 4))?;
        packet.fix_l4(fix(old[1], new[1], 4))?;
        packet.fix_l4(fix(old[2], new[2], 4))?;
        packet.fix_l4(fix(old[3], new[3], 4))?;
    }
    if quoted.content == Content::Ports && from_port != to.port {
        packet.write(quoted.l4 + port_at, to.port)?;
        packet.fix_l4(fix(u32::from(from_port.raw()), u32::from(to.port.raw()), 2))?;
    }
    Some(())
}
