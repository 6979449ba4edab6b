//! The uplinks: clients outside the cluster, and what node processes answer them.
//!
//! What is not for a frontend passes untouched. So does a TCP segment that neither opens a connection nor belongs to one
//! that is known: it is another proxy's connection, or a stale one, which the stack answers.

use skep_abi::{CtFlags, DropReason, NodeMode, PeerFlags, ServiceFlags};

use super::{Action, is_inside, is_outside, route, route_frame};
use crate::{
    conntrack,
    env::Env,
    family::Family,
    flow::{Fresh, Handled, Sender, apply, commit, follow, fragments},
    frame::{Content, TCP},
    icmp, lb,
    packet::Packet,
    room::Room,
    snat::Source,
};

/// Flags of entries that concern an uplink.
const CONCERNED: CtFlags = CtFlags::DNAT.with(CtFlags::REVNAT).with(CtFlags::FORWARDED);

/// A packet from the network.
///
/// # Errors
/// Why the packet must be dropped.
#[inline(always)]
pub fn from_uplink<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    room: &mut Room<A>,
) -> Result<(), DropReason> {
    room.action = Action::Pass;
    if A::parse(packet, &mut room.frame).is_err() {
        return Ok(());
    }
    if room.frame.content == Content::Error {
        return error(env, packet, room);
    }
    if !decide(env, room)? {
        return Ok(());
    }
    commit(env, room, source_for(&room.action))?;
    apply(env, packet, room)
}

/// Backends elsewhere answer to this node; those here are seen answering anyway.
#[inline(always)]
pub(super) fn source_for(action: &Action) -> Source {
    match action {
        Action::Tunnel | Action::World => Source::Gateway,
        _ => Source::Own,
    }
}

/// Decides what is to be done with a packet, and where it goes then; says whether it is for a frontend at all.
///
/// # Errors
/// Why the packet must be dropped.
#[inline(always)]
pub(super) fn decide<A: Family, E: Env<A>>(env: &mut E, room: &mut Room<A>) -> Result<bool, DropReason> {
    room.action = Action::Pass;
    if fragments(env, room).is_err() || !weigh(env, room)? {
        return Ok(false);
    }
    place(env, room)?;
    Ok(true)
}

/// Makes the plan for a packet; says whether it is for a frontend.
#[inline(never)]
fn weigh<A: Family, E: Env<A>>(env: &mut E, room: &mut Room<A>) -> Result<bool, DropReason> {
    let (known, is_reply) = match conntrack::peek(env, room) {
        Some((flags, is_reply)) if flags.any(CONCERNED) => (true, is_reply),
        Some(_) => return Ok(false),
        None => (false, false),
    };
    let opens = room.frame.opens || !known && room.frame.protocol != TCP;
    let is_service = opens && lb::find_outside(env, room)?;
    if !known && !is_service || !is_client(env, room, is_reply) {
        return Ok(false);
    }
    if known && follow(env, room) {
        return Ok(match room.plan.handled {
            Handled::Plain => false,
            Handled::Reply => room.plan.new_source,
            Handled::Translated | Handled::Forwarded => true,
        });
    }
    if !is_service {
        return Ok(false);
    }
    if lb::choose_outside(env, room) {
        return Ok(true);
    }
    // On a node's own address the stack refuses, as a port without listener would.
    let flags = room.service.flags;
    let refuse = flags.any(ServiceFlags::NODE_PORT) && !flags.any(ServiceFlags::SILENT);
    if refuse { Ok(false) } else { Err(lb::why_empty(&room.service)) }
}

/// Finds where the plan leads, seen from an uplink.
#[inline(always)]
fn place<A: Family, E: Env<A>>(env: &mut E, room: &mut Room<A>) -> Result<(), DropReason> {
    route(env, room)?;
    // Other nodes' processes are no outside clients: who gets their packets untranslated would not believe them.
    if room.outside
        && room.action == Action::Tunnel
        && room.plan.fresh == Fresh::Set
        && env.mode().any(NodeMode::DSR)
    {
        room.plan.handled = Handled::Forwarded;
    }
    forward(room)
}

/// What is forwarded goes through the tunnel as outside traffic; what is for this node, to the stack right here.
#[inline(always)]
fn forward<A: Family>(room: &mut Room<A>) -> Result<(), DropReason> {
    match room.action {
        Action::Tunnel if room.plan.handled == Handled::Forwarded => room.action = Action::TunnelOutside,
        // The backend that the flow was sent to has come here, or gone.
        _ if room.plan.handled == Handled::Forwarded => return Err(DropReason::NoEndpoint),
        Action::HostIngress => room.action = Action::Pass,
        _ => {}
    }
    Ok(())
}

/// Who may use a frontend through an uplink: everybody outside, and processes of other nodes, whose packets to node ports
/// take the underlay. Replies from inside the cluster come through the tunnel.
#[inline(never)]
fn is_client<A: Family, E: Env<A>>(env: &mut E, room: &mut Room<A>, is_reply: bool) -> bool {
    let src = room.frame.src;
    if src.is_loopback() || src.is_group() || src == A::default() {
        return false;
    }
    let peer = env.peer(src);
    room.outside = peer.is_none();
    match peer {
        None => !is_inside(env, src),
        Some(peer) => peer.flags.any(PeerFlags::REMOTE_NODE) && !is_reply,
    }
}

/// An ICMP error from the network: it concerns us when it is about a translated flow.
#[inline(never)]
fn error<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    room: &mut Room<A>,
) -> Result<(), DropReason> {
    if !is_outside(env, room) {
        return Ok(());
    }
    match icmp::translate(env, packet, room, Sender::Other) {
        Err(DropReason::UntrackedReply | DropReason::IcmpMismatch) => return Ok(()),
        Err(reason) => return Err(reason),
        Ok(()) => {}
    }
    match room.plan.handled {
        Handled::Plain => return Ok(()),
        // Its backend answers directly: the backend's node knows the flow.
        Handled::Forwarded => route(env, room)?,
        Handled::Reply | Handled::Translated => route_frame(env, room)?,
    }
    forward(room)
}

/// A packet to the network: the answer of a process of this node to an outside client comes from the frontend.
///
/// # Errors
/// Why the packet must be dropped.
#[inline(always)]
pub fn to_uplink<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    room: &mut Room<A>,
) -> Result<(), DropReason> {
    room.action = Action::Pass;
    if A::parse(packet, &mut room.frame).is_err() {
        return Ok(());
    }
    if room.frame.content == Content::Error {
        return match icmp::translate(env, packet, room, Sender::Host) {
            Err(DropReason::UntrackedReply | DropReason::IcmpMismatch) | Ok(()) => Ok(()),
            Err(reason) => Err(reason),
        };
    }
    if fragments(env, room).is_err() {
        return Ok(());
    }
    match conntrack::peek(env, room) {
        Some((flags, true)) if flags.any(CtFlags::REVNAT) => {}
        _ => return Ok(()),
    }
    if follow(env, room) && room.plan.handled == Handled::Reply {
        apply(env, packet, room)?;
    }
    Ok(())
}
