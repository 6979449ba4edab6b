//! One function for each place where a program sits: may the packet be here, and where does it go.

use skep_abi::{DropReason, Endpoint, Mac, Peer, PeerFlags, V6};

use crate::{
    env::Env,
    family::Family,
    flow::{Handled, Services, handle},
    frame::{Frame, UDP},
    packet::{EthHeader, Packet},
};

/// Where a packet goes.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Into a pod of this node, past the host's stack.
    Deliver(Endpoint),
    /// Through the tunnel to the node with this underlay address (IPv4 as a mapped address), as inside traffic.
    Tunnel(V6),
    /// Likewise, untranslated from a client outside the cluster.
    TunnelOutside(V6),
    /// On to the stack, or to the device it was sent to.
    Pass,
    /// To the stack as if it came in on the node-side veth pair.
    HostIngress,
    /// Out of the node by its routes.
    World,
}

const DHCP_SERVER_PORT: u16 = 67;

/// Where an address is, seen from this node.
#[inline(always)]
fn route<A: Family, E: Env<A>>(env: &mut E, dst: A) -> Result<Action, DropReason> {
    if let Some(endpoint) = env.endpoint(dst) {
        return Ok(Action::Deliver(endpoint));
    }
    let Some(peer) = env.peer(dst) else {
        let inside = env.is_cluster(dst) || env.is_service(dst);
        return if inside { Err(DropReason::NoEndpoint) } else { Ok(Action::World) };
    };
    if peer.flags.any(PeerFlags::HOST) {
        return Ok(Action::HostIngress);
    }
    if peer.flags.any(PeerFlags::REMOTE_NODE.with(PeerFlags::REMOTE_PODS)) {
        return Ok(Action::Tunnel(peer.node));
    }
    Err(DropReason::NoEndpoint)
}

/// A packet from a pod, on the host side of its veth.
///
/// # Errors
/// Why the packet must be dropped.
#[inline(always)]
pub fn from_pod<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    ifindex: u32,
) -> Result<Action, DropReason> {
    let mut frame = A::parse(packet)?;
    let header: EthHeader = packet.read(0).ok_or(DropReason::Malformed)?;
    check_sender(env, &frame, header.src, ifindex)?;
    let handled = handle(env, packet, &mut frame, Services::Translate)?;
    match route(env, frame.dst)? {
        // The stack takes it from here, unless its source is a frontend, which the stack would look for elsewhere.
        Action::HostIngress if handled == Handled::Forward => Ok(Action::Pass),
        action => Ok(action),
    }
}

#[inline(always)]
fn check_sender<A: Family, E: Env<A>>(
    env: &mut E,
    frame: &Frame<A>,
    mac: Mac,
    ifindex: u32,
) -> Result<(), DropReason> {
    let sender = env.endpoint(frame.src).ok_or(DropReason::SpoofedSource)?;
    if sender.ifindex != ifindex {
        return Err(DropReason::SpoofedSource);
    }
    if sender.mac != mac {
        return Err(DropReason::SpoofedMac);
    }
    if frame.dst.is_loopback() {
        return Err(DropReason::Martian);
    }
    if frame.dst.is_group() {
        return Err(DropReason::GroupDestination);
    }
    if frame.protocol == UDP && frame.src_port.get() == DHCP_SERVER_PORT {
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
    ifindex: u32,
    came_in: bool,
) -> Result<Action, DropReason> {
    let mut frame = A::parse(packet)?;
    if frame.src.is_loopback() || frame.dst.is_loopback() {
        return Err(DropReason::Martian);
    }
    if env.endpoint(frame.dst).is_none_or(|endpoint| endpoint.ifindex != ifindex) {
        return Err(DropReason::NoEndpoint);
    }
    check_stack_source(env, frame.src, came_in)?;
    let _handled = handle(env, packet, &mut frame, Services::Follow)?;
    Ok(Action::Pass)
}

/// Who may reach a pod through the host's stack: this node, and the world. Everybody in the cluster comes another way.
#[inline(always)]
fn check_stack_source<A: Family, E: Env<A>>(env: &mut E, src: A, came_in: bool) -> Result<(), DropReason> {
    let Some(peer) = env.peer(src) else {
        let inside = env.is_cluster(src) || env.is_service(src);
        return if inside { Err(DropReason::PeerUnknown) } else { Ok(()) };
    };
    if peer.flags.any(PeerFlags::HOST) {
        return if came_in { Err(DropReason::SpoofedSource) } else { Ok(()) };
    }
    if peer.flags.any(PeerFlags::LOCAL_PODS) {
        return Err(DropReason::SpoofedSource);
    }
    Err(DropReason::TunnelSpoofed)
}

/// A packet out of the tunnel; `outer` is the underlay address it came from.
///
/// # Errors
/// Why the packet must be dropped.
#[inline(always)]
pub fn from_overlay<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    outer: V6,
) -> Result<Action, DropReason> {
    let mut frame = A::parse(packet)?;
    if frame.dst.is_loopback() || frame.src.is_loopback() {
        return Err(DropReason::Martian);
    }
    if frame.dst.is_group() {
        return Err(DropReason::GroupDestination);
    }
    check_tunnel_source(env.peer(frame.src), outer)?;
    let _handled = handle(env, packet, &mut frame, Services::Follow)?;
    match route(env, frame.dst) {
        Ok(action @ (Action::Deliver(_) | Action::HostIngress)) => Ok(action),
        Err(reason) => Err(reason),
        Ok(_) => Err(DropReason::NotForThisNode),
    }
}

#[inline(always)]
fn check_tunnel_source(peer: Option<Peer>, outer: V6) -> Result<(), DropReason> {
    let peer = peer.ok_or(DropReason::PeerUnknown)?;
    let remote = peer.flags.any(PeerFlags::REMOTE_NODE.with(PeerFlags::REMOTE_PODS));
    if remote && peer.node == outer { Ok(()) } else { Err(DropReason::TunnelSpoofed) }
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
    let _handled = handle(env, packet, &mut frame, Services::Follow)?;
    match route(env, frame.dst) {
        Ok(action @ Action::Tunnel(_)) => Ok(action),
        Err(reason) => Err(reason),
        Ok(_) => Err(DropReason::NotForThisNode),
    }
}

/// A packet of this node's processes to a Service or to a pod of another node, on the node-side veth pair.
///
/// # Errors
/// Why the packet must be dropped.
#[inline(always)]
pub fn from_host<A: Family, P: Packet, E: Env<A>>(env: &mut E, packet: &mut P) -> Result<Action, DropReason> {
    let mut frame = A::parse(packet)?;
    if frame.dst.is_group() {
        return Err(DropReason::GroupDestination);
    }
    check_own_source(env, frame.src)?;
    let _handled = handle(env, packet, &mut frame, Services::Translate)?;
    match route(env, frame.dst)? {
        // A backend on this very node: its answer would not pass here on the way back.
        Action::HostIngress => Err(DropReason::Hairpin),
        Action::World => Err(DropReason::NoRoute),
        action => Ok(action),
    }
}

#[inline(always)]
fn check_own_source<A: Family, E: Env<A>>(env: &mut E, src: A) -> Result<(), DropReason> {
    match env.peer(src) {
        Some(peer) if peer.flags.any(PeerFlags::HOST) => Ok(()),
        _ => Err(DropReason::SpoofedSource),
    }
}

#[cfg(test)]
mod tests;
