//! ICMP errors: they belong to the flow of the packet they quote, and are translated in both directions like that flow.
//!
//! An error goes to whoever sent the quoted packet: its outer destination is the quoted source, or it is refused.

use skep_abi::{CtFlags, DropReason};

use crate::{
    conntrack::{Target, set_key},
    env::Env,
    family::Family,
    flow::{Handled, Sender},
    frame::{Content, Frame},
    nat::{End, rewrite},
    packet::{ChecksumFix, ETH_LEN, Packet},
    room::Room,
};

const ICMP_HEADER_LEN: u32 = 8;

/// Translates an ICMP error about a translated flow; errors about unknown flows are refused. Afterwards the plan says what
/// became of it, and of a forwarded flow where its backend is.
///
/// The quoted L4 checksum is left as it is: receivers match the quote by addresses and ports.
///
/// # Errors
/// [`DropReason::UntrackedReply`], [`DropReason::IcmpMismatch`], [`DropReason::RewriteFailed`].
#[inline(always)]
pub fn translate<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    room: &mut Room<A>,
    sender: Sender,
) -> Result<(), DropReason> {
    relate(env, packet, room, sender)?;
    // About a client's packet on its way to the backend, the client must read of the frontend, and of itself. About an
    // answer on its way to the client, the backend must read of itself, and of whom it answered.
    let (nat, peer) = match room.plan.handled {
        Handled::Reply => (End::Destination, End::Source),
        Handled::Translated => (End::Source, End::Destination),
        Handled::Plain | Handled::Forwarded => return Ok(()),
    };
    change(packet, room, nat)?;
    if room.plan.new_source { change(packet, room, peer) } else { Ok(()) }
}

/// Finds the flow of the quoted packet. The plan's `to` is what the flow translates the quote's far end to, its source what
/// it translates the near end to.
#[inline(never)]
fn relate<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &P,
    room: &mut Room<A>,
    sender: Sender,
) -> Result<(), DropReason> {
    let Room { frame, quoted, plan, key, .. } = room;
    A::parse_quoted(packet, frame.l4 + ICMP_HEADER_LEN, quoted).ok_or(DropReason::UntrackedReply)?;
    // Only who got a packet may complain about it; routers do, too, but pods are none.
    if quoted.src != frame.dst || sender == Sender::Pod && quoted.dst != frame.src {
        return Err(DropReason::IcmpMismatch);
    }
    let from_b = set_key(key, quoted);
    let value = env.flow(key).ok_or(DropReason::UntrackedReply)?;
    let is_reply = value.flags.any(CtFlags::FROM_B) != from_b;
    plan.to = Target { addr: value.nat_addr, port: value.nat_port };
    plan.source = Target { addr: value.peer_addr, port: value.peer_port };
    plan.new_source = value.flags.any(CtFlags::SNAT);
    plan.handled = match value.flags {
        flags if flags.any(CtFlags::REVNAT) && !is_reply => Handled::Reply,
        flags if flags.any(CtFlags::DNAT) && is_reply => Handled::Translated,
        flags if flags.any(CtFlags::FORWARDED) && is_reply => Handled::Forwarded,
        _ => Handled::Plain,
    };
    Ok(())
}

/// Changes one end of the quote, and the opposite end of the error itself.
#[inline(never)]
fn change<A: Family, P: Packet>(packet: &mut P, room: &mut Room<A>, end: End) -> Result<(), DropReason> {
    let Room { frame, quoted, plan, .. } = room;
    // The end that the plan's `to` is for is the quoted destination of a packet, the quoted source of an answer.
    let far = (end == End::Destination) == (plan.handled == Handled::Reply);
    let to = if far { plan.to } else { plan.source };
    // Only the backend itself hides behind the frontend; routers on the way to it keep their address.
    let keeps = end == End::Destination && far && frame.src != quoted.dst;
    rewrite_quote(packet, frame.l4, quoted, end, &to).ok_or(DropReason::RewriteFailed)?;
    if keeps {
        return Ok(());
    }
    let (outer, port) = match end {
        End::Source => (End::Destination, frame.dst_port),
        End::Destination => (End::Source, frame.src_port),
    };
    rewrite(packet, frame, outer, &Target { addr: to.addr, port }).ok_or(DropReason::RewriteFailed)
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
