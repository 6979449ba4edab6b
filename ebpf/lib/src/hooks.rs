//! One function for each place where a program sits: may the packet be here, and where does it go.
//!
//! Hooks take the [`Room`] that they work in, and leave the action there.
//!
//! No hook decrements the time to live. What leaves the node by the tunnel is delivered on the other side or dropped.
//!
//! A debt: a backend outside of the cluster is reached by [`Action::World`], and where it is another frontend of ours two
//! Services can hand a packet to and fro. Such backends are to be refused, and the time to live to be decremented there.

use skep_abi::{DropReason, PeerFlags, V6};

use crate::{conntrack::Target, env::Env, family::Family, room::Room};

mod early;
mod host;
mod overlay;
mod pod;
mod uplink;

pub use early::xdp;
pub use host::from_host;
pub use overlay::{from_overlay, to_overlay};
pub use pod::{from_pod, to_pod};
pub use uplink::{from_uplink, to_uplink};

/// Where a packet goes. Facts that go with it are in the [`Room`], because LLVM writes the bytes that a variant does not
/// have from registers that hold nothing, which no verifier takes.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Into a pod of this node, [`Room::endpoint`], past the host's stack.
    Deliver,
    /// Through the tunnel to [`Room::node`], as inside traffic.
    Tunnel,
    /// Likewise, untranslated from a client outside the cluster.
    TunnelOutside,
    /// On to the stack, or to the device it was sent to.
    Pass,
    /// To the stack as if it came in on the node-side veth pair.
    HostIngress,
    /// Out of the node by its routes.
    World,
    /// Back out of the device it came from: it was turned into its own answer.
    Answer,
}

/// Finds where the plan leads, seen from this node.
///
/// # Errors
/// [`DropReason::NoEndpoint`].
#[inline(never)]
fn route<A: Family, E: Env<A>>(env: &mut E, room: &mut Room<A>) -> Result<(), DropReason> {
    let Some(endpoint) = env.endpoint(room.plan.to.addr) else { return beyond(env, room) };
    room.endpoint = endpoint;
    room.action = Action::Deliver;
    Ok(())
}

/// The same for an address that no pod of this node has.
#[inline(always)]
fn beyond<A: Family, E: Env<A>>(env: &mut E, room: &mut Room<A>) -> Result<(), DropReason> {
    let dst = room.plan.to.addr;
    room.action = Action::World;
    let Some(peer) = env.peer(dst) else {
        return if is_inside(env, dst) { Err(DropReason::NoEndpoint) } else { Ok(()) };
    };
    if peer.flags.any(PeerFlags::HOST) {
        room.action = Action::HostIngress;
    } else if !peer.flags.any(PeerFlags::REMOTE_NODE.with(PeerFlags::REMOTE_PODS)) {
        return Err(DropReason::NoEndpoint);
    } else if peer.node != V6::from_raw([0; 4]) {
        // Without a tunnel the underlay's own routes lead there.
        room.node = peer.node;
        room.action = Action::Tunnel;
    }
    Ok(())
}

/// Whether an address that the ipcache does not know belongs to the cluster nevertheless.
#[inline(always)]
fn is_inside<A: Family, E: Env<A>>(env: &E, addr: A) -> bool {
    env.is_cluster(addr) || env.is_service(addr)
}

/// Whether an address can be a client outside the cluster.
#[inline(never)]
fn is_outside<A: Family, E: Env<A>>(env: &mut E, room: &Room<A>) -> bool {
    let addr = room.frame.src;
    !addr.is_loopback()
        && !addr.is_group()
        && addr != A::default()
        && !is_inside(env, addr)
        && env.peer(addr).is_none()
}

/// The plan is to send the packet where it says itself: what was translated, was so before.
#[inline(always)]
fn route_frame<A: Family, E: Env<A>>(env: &mut E, room: &mut Room<A>) -> Result<(), DropReason> {
    room.plan.to = Target { addr: room.frame.dst, port: room.frame.dst_port };
    route(env, room)
}

/// Whether the source is an address of this node.
#[inline(always)]
fn check_own_source<A: Family, E: Env<A>>(env: &mut E, src: A) -> Result<(), DropReason> {
    match env.peer(src) {
        Some(peer) if peer.flags.any(PeerFlags::HOST) => Ok(()),
        _ => Err(DropReason::SpoofedSource),
    }
}

#[cfg(test)]
mod tests;
