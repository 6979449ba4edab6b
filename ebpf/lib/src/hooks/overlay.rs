//! The tunnel device.

use skep_abi::{DropReason, Peer, PeerFlags, V6, VNI_CLUSTER, VNI_WORLD};

use super::{Action, check_own_source, is_outside, route};
use crate::{
    env::Env,
    family::Family,
    flow::{Handled, Plan, Sender, apply, commit, follow, fragments, handle},
    frame::{Content, Frame},
    icmp, lb,
    packet::Packet,
    snat::Source,
};

/// A packet out of the tunnel; `outer` is the underlay address it came from (IPv4 as a mapped address).
///
/// # Errors
/// Why the packet must be dropped.
#[inline(always)]
pub fn from_overlay<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    outer: V6,
    vni: u32,
) -> Result<Action, DropReason> {
    let mut frame = A::parse(packet)?;
    if frame.dst.is_loopback() || frame.src.is_loopback() {
        return Err(DropReason::Martian);
    }
    if frame.dst.is_group() {
        return Err(DropReason::GroupDestination);
    }
    if frame.content == Content::Neighbour {
        return Err(DropReason::SpoofedNeighbour);
    }
    match vni {
        VNI_CLUSTER => from_peer(env, packet, &mut frame, outer),
        VNI_WORLD => from_outside(env, packet, &mut frame, outer),
        _ => Err(DropReason::UnknownVni),
    }
}

/// From a pod or a process of another node.
#[inline(always)]
fn from_peer<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    frame: &mut Frame<A>,
    outer: V6,
) -> Result<Action, DropReason> {
    check_tunnel_source(env.peer(frame.src), outer)?;
    let handled = handle(env, packet, frame, Sender::Other)?;
    match route(env, frame.dst) {
        Ok(action @ (Action::Deliver(_) | Action::HostIngress)) => Ok(action),
        // The answer of a backend to a client that is not on this node: this node stood in for it.
        Ok(action) if handled == Handled::Reply => Ok(action),
        // A complaint about such an answer goes back to the backend.
        Ok(action) if handled == Handled::Translated && frame.content == Content::Error => Ok(action),
        Ok(_) => Err(DropReason::NotForThisNode),
        Err(reason) => Err(reason),
    }
}

#[inline(always)]
fn check_tunnel_source(peer: Option<Peer>, outer: V6) -> Result<(), DropReason> {
    let peer = peer.ok_or(DropReason::PeerUnknown)?;
    let remote = peer.flags.any(PeerFlags::REMOTE_NODE.with(PeerFlags::REMOTE_PODS));
    if remote && peer.node == outer { Ok(()) } else { Err(DropReason::TunnelSpoofed) }
}

/// From a client outside the cluster, sent on by the node it came to: one of our own endpoints answers it directly.
#[inline(always)]
fn from_outside<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    frame: &mut Frame<A>,
    outer: V6,
) -> Result<Action, DropReason> {
    let node = env.underlay(outer).ok_or(DropReason::TunnelSpoofed)?;
    if !node.flags.any(PeerFlags::REMOTE_NODE) || node.node != outer {
        return Err(DropReason::TunnelSpoofed);
    }
    if !is_outside(env, frame.src) {
        return Err(DropReason::NotOutside);
    }
    if frame.content == Content::Error {
        let handled = icmp::translate(env, packet, frame, Sender::Other)?;
        return here(route(env, frame.dst)?, handled);
    }
    fragments(env, frame)?;
    let mut plan = match follow(env, frame) {
        Some(plan) => plan,
        None => {
            let service = lb::find_local(env, frame)?;
            let pick = lb::choose_outside(env, &service, frame).ok_or_else(|| lb::why_empty(&service))?;
            Plan::first(pick.target(), service.set)
        }
    };
    let action = here(route(env, plan.to.addr)?, plan.handled)?;
    commit(env, frame, &mut plan, Source::Own)?;
    apply(env, packet, frame, &plan)?;
    Ok(action)
}

/// What is sent on from another node is for a backend of this one.
#[inline(always)]
fn here(action: Action, handled: Handled) -> Result<Action, DropReason> {
    match action {
        _ if handled != Handled::Translated => Err(DropReason::NotOutside),
        Action::Deliver(_) | Action::HostIngress => Ok(action),
        _ => Err(DropReason::NotForThisNode),
    }
}

/// A packet of this node's stack that its routes sent into the tunnel device.
///
/// # Errors
/// Why the packet must be dropped.
#[inline(always)]
pub fn to_overlay<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
) -> Result<Action, DropReason> {
    let mut frame = A::parse(packet)?;
    check_own_source(env, frame.src)?;
    let _handled = handle(env, packet, &mut frame, Sender::Other)?;
    match route(env, frame.dst) {
        Ok(action @ Action::Tunnel(_)) => Ok(action),
        Err(reason) => Err(reason),
        Ok(_) => Err(DropReason::NotForThisNode),
    }
}
