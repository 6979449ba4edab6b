//! The host side of a pod's veth.

use skep_abi::{DropReason, Endpoint, Mac, PeerFlags};

use super::{Action, is_inside, route_frame};
use crate::{
    env::Env,
    family::Family,
    flow::{Handled, Sender, handle},
    frame::{Content, Frame, UDP},
    ndp,
    packet::{EthHeader, Packet},
    room::Room,
};

const DHCP_SERVER_PORT: u16 = 67;
const DHCP6_SERVER_PORT: u16 = 547;

/// A packet from a pod.
///
/// # Errors
/// Why the packet must be dropped.
#[inline(always)]
pub fn from_pod<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    room: &mut Room<A>,
    ifindex: u32,
) -> Result<(), DropReason> {
    A::parse(packet, &mut room.frame)?;
    let frame = &room.frame;
    let header: EthHeader = packet.read(0).ok_or(DropReason::Malformed)?;
    // What a stack says by itself on every link it has (RFC 4861, 3810): nobody here listens, and nobody cheats.
    if A::BITS == 128 && frame.dst.is_group() && frame.src.is_link_scoped() {
        return Err(DropReason::GroupDestination);
    }
    let sender = check_sender(env, frame, header.src, ifindex)?;
    if A::BITS == 128 && frame.content == Content::Neighbour {
        room.action = ndp::from_pod(packet, frame, &sender)?;
        return Ok(());
    }
    check_content(frame)?;
    handle(env, packet, room, Sender::Pod)?;
    route_frame(env, room)?;
    // The stack takes it from here, unless its source is a frontend, which the stack would look for elsewhere.
    if room.action == Action::HostIngress && room.plan.handled != Handled::Reply {
        room.action = Action::Pass;
    }
    Ok(())
}

#[inline(always)]
fn check_sender<A: Family, E: Env<A>>(
    env: &mut E,
    frame: &Frame<A>,
    mac: Mac,
    ifindex: u32,
) -> Result<Endpoint, DropReason> {
    let sender = env.endpoint(frame.src).ok_or(DropReason::SpoofedSource)?;
    if sender.ifindex != ifindex {
        return Err(DropReason::SpoofedSource);
    }
    if sender.mac != mac {
        return Err(DropReason::SpoofedMac);
    }
    Ok(sender)
}

/// What no pod may send, whoever it is for.
#[inline(always)]
fn check_content<A: Family>(frame: &Frame<A>) -> Result<(), DropReason> {
    if frame.dst.is_loopback() {
        return Err(DropReason::Martian);
    }
    // Routes of the node must not lead a pod to the neighbours of its uplink.
    if frame.dst.is_group() || frame.dst.is_link_scoped() {
        return Err(DropReason::GroupDestination);
    }
    let server = if A::BITS == 128 { DHCP6_SERVER_PORT } else { DHCP_SERVER_PORT };
    if frame.protocol == UDP && frame.src_port.get() == server {
        return Err(DropReason::DhcpServer);
    }
    Ok(())
}

/// A packet from the host's stack to a pod. `came_in` says that the node did not make it itself.
///
/// # Errors
/// Why the packet must be dropped.
#[inline(always)]
pub fn to_pod<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    room: &mut Room<A>,
    ifindex: u32,
    came_in: bool,
) -> Result<(), DropReason> {
    A::parse(packet, &mut room.frame)?;
    room.action = Action::Pass;
    let frame = &room.frame;
    if frame.src.is_loopback() || frame.dst.is_loopback() {
        return Err(DropReason::Martian);
    }
    if frame.dst.is_group() {
        return Err(DropReason::GroupDestination);
    }
    if env.endpoint(frame.dst).is_none_or(|endpoint| endpoint.ifindex != ifindex) {
        return Err(DropReason::NoEndpoint);
    }
    check_stack_source(env, frame.src, came_in)?;
    if frame.content == Content::Neighbour {
        // The node asks whether its pod is there; nobody else's question gets this far.
        return if came_in { Err(DropReason::SpoofedNeighbour) } else { Ok(()) };
    }
    handle(env, packet, room, Sender::Other)?;
    match room.plan.handled {
        Handled::Plain | Handled::Reply => Ok(()),
        // It was on its way to a pod, and is no longer.
        Handled::Translated | Handled::Forwarded => Err(DropReason::NoEndpoint),
    }
}

/// Who may reach a pod through the host's stack: this node, and the world. Everybody in the cluster comes another way.
#[inline(always)]
fn check_stack_source<A: Family, E: Env<A>>(env: &mut E, src: A, came_in: bool) -> Result<(), DropReason> {
    let Some(peer) = env.peer(src) else {
        return if is_inside(env, src) { Err(DropReason::PeerUnknown) } else { Ok(()) };
    };
    if peer.flags.any(PeerFlags::HOST) {
        return if came_in { Err(DropReason::SpoofedSource) } else { Ok(()) };
    }
    if peer.flags.any(PeerFlags::LOCAL_PODS) {
        return Err(DropReason::SpoofedSource);
    }
    Err(DropReason::TunnelSpoofed)
}
