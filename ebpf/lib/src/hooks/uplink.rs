//! The uplinks: clients outside the cluster, and what node processes answer them.
//!
//! What is not for a frontend passes untouched. So does a TCP segment that neither opens a connection nor belongs to one
//! that is known: it is another proxy's connection, or a stale one, which the stack answers.

use skep_abi::{CtFlags, DropReason, NodeMode, PeerFlags, ServiceFlags};

use super::{Action, is_inside, is_outside, route};
use crate::{
    conntrack,
    env::Env,
    family::Family,
    flow::{Fresh, Handled, Plan, Sender, apply, commit, follow, fragments},
    frame::{Content, Frame, TCP},
    icmp, lb,
    packet::Packet,
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
) -> Result<Action, DropReason> {
    let Ok(mut frame) = A::parse(packet) else { return Ok(Action::Pass) };
    if frame.content == Content::Error {
        return error(env, packet, &mut frame);
    }
    let Some((mut plan, action)) = decide(env, &mut frame)? else { return Ok(Action::Pass) };
    commit(env, &frame, &mut plan, source_for(&action))?;
    apply(env, packet, &mut frame, &plan)?;
    Ok(action)
}

/// Backends elsewhere answer to this node; those here are seen answering anyway.
#[inline(always)]
pub(super) fn source_for(action: &Action) -> Source {
    match action {
        Action::Tunnel(_) | Action::World => Source::Gateway,
        _ => Source::Own,
    }
}

/// What is to be done with a packet for a frontend, and where it goes then. `None`: it is for no frontend.
///
/// In IPv6 this and what follows need more than a program's 512 bytes of stack, so each gets a frame of its own.
#[inline(always)]
pub(super) fn decide<A: Family, E: Env<A>>(
    env: &mut E,
    frame: &mut Frame<A>,
) -> Result<Option<(Plan<A>, Action)>, DropReason> {
    if A::BITS == 128 { decide_apart(env, frame) } else { weigh(env, frame) }
}

#[inline(never)]
fn decide_apart<A: Family, E: Env<A>>(
    env: &mut E,
    frame: &mut Frame<A>,
) -> Result<Option<(Plan<A>, Action)>, DropReason> {
    weigh(env, frame)
}

#[inline(always)]
fn weigh<A: Family, E: Env<A>>(
    env: &mut E,
    frame: &mut Frame<A>,
) -> Result<Option<(Plan<A>, Action)>, DropReason> {
    if fragments(env, frame).is_err() {
        return Ok(None);
    }
    let (known, is_reply) = match conntrack::peek(env, frame) {
        Some((flags, _)) if !flags.any(CONCERNED) => return Ok(None),
        Some((_, is_reply)) => (true, is_reply),
        None => (false, false),
    };
    let mut service = None;
    if frame.opens || !known && frame.protocol != TCP {
        service = lb::find_outside(env, frame)?;
    }
    if !known && service.is_none() || !is_client(env, frame.src, is_reply) {
        return Ok(None);
    }
    let followed = if known { follow(env, frame) } else { None };
    let mut plan = match (followed, service) {
        (Some(plan), _) => plan,
        (None, None) => return Ok(None),
        (None, Some(service)) => {
            let Some(pick) = lb::choose_outside(env, &service, frame) else {
                // On a node's own address the stack refuses, as a port without listener would.
                let refuse =
                    service.flags.any(ServiceFlags::NODE_PORT) && !service.flags.any(ServiceFlags::SILENT);
                return if refuse { Ok(None) } else { Err(lb::why_empty(&service)) };
            };
            Plan::first(pick.target(), service.set)
        }
    };
    if plan.handled == Handled::Plain || plan.handled == Handled::Reply && plan.source.is_none() {
        return Ok(None);
    }
    let action = place(env, &mut plan)?;
    Ok(Some((plan, action)))
}

/// Where a plan leads, seen from an uplink.
#[inline(always)]
fn place<A: Family, E: Env<A>>(env: &mut E, plan: &mut Plan<A>) -> Result<Action, DropReason> {
    let action = route(env, plan.to.addr)?;
    if let Action::Tunnel(node) = action
        && matches!(plan.fresh, Fresh::Set(_))
        && env.mode().any(NodeMode::DSR)
    {
        plan.handled = Handled::Forwarded;
        return Ok(Action::TunnelOutside(node));
    }
    match action {
        Action::Tunnel(node) if plan.handled == Handled::Forwarded => Ok(Action::TunnelOutside(node)),
        // The backend that the flow was sent to is on this node now, under the same address: never the same one.
        _ if plan.handled == Handled::Forwarded => Err(DropReason::NoEndpoint),
        Action::HostIngress => Ok(Action::Pass),
        action => Ok(action),
    }
}

/// Who may use a frontend through an uplink: everybody outside, and processes of other nodes, whose packets to node ports
/// take the underlay. Replies from inside the cluster come through the tunnel.
#[inline(always)]
fn is_client<A: Family, E: Env<A>>(env: &mut E, src: A, is_reply: bool) -> bool {
    if src.is_loopback() || src.is_group() || src == A::default() {
        return false;
    }
    match env.peer(src) {
        None => !is_inside(env, src),
        Some(peer) => peer.flags.any(PeerFlags::REMOTE_NODE) && !is_reply,
    }
}

/// An ICMP error from the network: it concerns us when it is about a translated flow.
#[inline(always)]
fn error<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    frame: &mut Frame<A>,
) -> Result<Action, DropReason> {
    if !is_outside(env, frame.src) {
        return Ok(Action::Pass);
    }
    match icmp::translate(env, packet, frame, Sender::Other) {
        Ok(Handled::Plain) | Err(DropReason::UntrackedReply | DropReason::IcmpMismatch) => Ok(Action::Pass),
        Ok(Handled::Forwarded) => forward_error(env, packet, frame),
        Ok(_) => match route(env, frame.dst)? {
            Action::HostIngress => Ok(Action::Pass),
            action => Ok(action),
        },
        Err(reason) => Err(reason),
    }
}

/// An error about the answer of a backend that answers directly: its node knows the flow.
#[inline(always)]
fn forward_error<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &P,
    frame: &Frame<A>,
) -> Result<Action, DropReason> {
    let backend = icmp::forwarded_to(env, packet, frame)?;
    match route(env, backend)? {
        Action::Tunnel(node) => Ok(Action::TunnelOutside(node)),
        _ => Err(DropReason::NoEndpoint),
    }
}

/// A packet to the network: the answer of a process of this node to an outside client comes from the frontend.
///
/// # Errors
/// Why the packet must be dropped.
#[inline(always)]
pub fn to_uplink<A: Family, P: Packet, E: Env<A>>(env: &mut E, packet: &mut P) -> Result<Action, DropReason> {
    let Ok(mut frame) = A::parse(packet) else { return Ok(Action::Pass) };
    if frame.content == Content::Error {
        return match icmp::translate(env, packet, &mut frame, Sender::Host) {
            Err(DropReason::UntrackedReply | DropReason::IcmpMismatch) | Ok(_) => Ok(Action::Pass),
            Err(reason) => Err(reason),
        };
    }
    if fragments(env, &mut frame).is_err() {
        return Ok(Action::Pass);
    }
    match conntrack::peek(env, &frame) {
        Some((flags, true)) if flags.any(CtFlags::REVNAT) => {}
        _ => return Ok(Action::Pass),
    }
    if let Some(plan) = follow(env, &frame)
        && plan.handled == Handled::Reply
    {
        apply(env, packet, &mut frame, &plan)?;
    }
    Ok(Action::Pass)
}
