//! The tunnel device.

use skep_abi::{DropReason, PeerFlags, V6, VNI_CLUSTER, VNI_WORLD};

use super::{Action, check_own_source, is_outside, route, route_frame};
use crate::{
    env::Env,
    family::Family,
    flow::{Handled, Sender, apply, commit, follow, fragments, handle},
    frame::Content,
    icmp, lb,
    packet::Packet,
    room::Room,
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
    room: &mut Room<A>,
    outer: &V6,
    vni: u32,
) -> Result<(), DropReason> {
    A::parse(packet, &mut room.frame)?;
    let frame = &room.frame;
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
        VNI_CLUSTER => from_peer(env, packet, room, outer),
        VNI_WORLD => from_outside(env, packet, room, outer),
        _ => Err(DropReason::UnknownVni),
    }
}

/// From a pod or a process of another node.
#[inline(always)]
fn from_peer<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    room: &mut Room<A>,
    outer: &V6,
) -> Result<(), DropReason> {
    check_tunnel_source(env, room, outer)?;
    handle(env, packet, room, Sender::Peer)?;
    route_frame(env, room)?;
    match room.action {
        Action::Deliver | Action::HostIngress => Ok(()),
        // The answer of a backend to a client that is not on this node: this node stood in for it.
        _ if room.plan.handled == Handled::Reply => Ok(()),
        // A complaint about such an answer goes back to the backend.
        _ if room.plan.handled == Handled::Translated && room.frame.content == Content::Error => Ok(()),
        _ => Err(DropReason::NotForThisNode),
    }
}

#[inline(never)]
fn check_tunnel_source<A: Family, E: Env<A>>(
    env: &mut E,
    room: &Room<A>,
    outer: &V6,
) -> Result<(), DropReason> {
    let peer = env.peer(room.frame.src).ok_or(DropReason::PeerUnknown)?;
    let remote = peer.flags.any(PeerFlags::REMOTE_NODE.with(PeerFlags::REMOTE_PODS));
    if remote && peer.node == *outer { Ok(()) } else { Err(DropReason::TunnelSpoofed) }
}

/// From a client outside the cluster, sent on by the node it came to: one of our own endpoints answers it directly.
#[inline(never)]
fn from_outside<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    room: &mut Room<A>,
    outer: &V6,
) -> Result<(), DropReason> {
    let node = env.underlay(*outer).ok_or(DropReason::TunnelSpoofed)?;
    if !node.flags.any(PeerFlags::REMOTE_NODE) || node.node != *outer {
        return Err(DropReason::TunnelSpoofed);
    }
    if !is_outside(env, room) {
        return Err(DropReason::NotOutside);
    }
    if room.frame.content == Content::Error {
        icmp::translate(env, packet, room, Sender::Other)?;
        route_frame(env, room)?;
        return check_here(room);
    }
    fragments(env, room)?;
    if !follow(env, room) {
        lb::find_local(env, room)?;
        if !lb::choose_outside(env, room) {
            return Err(lb::why_empty(&room.service));
        }
    }
    route(env, room)?;
    check_here(room)?;
    commit(env, room, Source::Own)?;
    apply(env, packet, room)
}

/// What is sent on from another node is for a backend of this one.
#[inline(always)]
fn check_here<A: Family>(room: &Room<A>) -> Result<(), DropReason> {
    match room.action {
        _ if room.plan.handled != Handled::Translated => Err(DropReason::NotOutside),
        Action::Deliver | Action::HostIngress => Ok(()),
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
    room: &mut Room<A>,
) -> Result<(), DropReason> {
    A::parse(packet, &mut room.frame)?;
    // What a stack says by itself on every link it has: nobody listens on the other side.
    if room.frame.dst.is_group() {
        return Err(DropReason::GroupDestination);
    }
    check_own_source(env, room.frame.src)?;
    handle(env, packet, room, Sender::Other)?;
    route_frame(env, room)?;
    match room.action {
        Action::Tunnel => Ok(()),
        _ => Err(DropReason::NotForThisNode),
    }
}
