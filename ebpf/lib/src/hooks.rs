//! One function for each place where a program sits: may the packet be here, and where does it go.
//!
//! No hook decrements the time to live: whatever leaves the node by the tunnel is delivered on the other side or dropped,
//! so nothing can circle, and the kernel's own VXLAN and redirect helpers do not either.

use skep_abi::{DropReason, Endpoint, PeerFlags, V6};

use crate::{env::Env, family::Family};

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
    /// Back out of the device it came from: it was turned into its own answer.
    Answer,
}

/// Where an address is, seen from this node.
#[inline(always)]
fn route<A: Family, E: Env<A>>(env: &mut E, dst: A) -> Result<Action, DropReason> {
    if let Some(endpoint) = env.endpoint(dst) {
        return Ok(Action::Deliver(endpoint));
    }
    let Some(peer) = env.peer(dst) else {
        return if is_inside(env, dst) { Err(DropReason::NoEndpoint) } else { Ok(Action::World) };
    };
    if peer.flags.any(PeerFlags::HOST) {
        return Ok(Action::HostIngress);
    }
    if peer.flags.any(PeerFlags::REMOTE_NODE.with(PeerFlags::REMOTE_PODS)) {
        // Without a tunnel the underlay's own routes lead there.
        return Ok(if peer.node == V6::from_raw([0; 4]) { Action::World } else { Action::Tunnel(peer.node) });
    }
    Err(DropReason::NoEndpoint)
}

/// Whether an address that the ipcache does not know belongs to the cluster nevertheless.
#[inline(always)]
fn is_inside<A: Family, E: Env<A>>(env: &E, addr: A) -> bool {
    env.is_cluster(addr) || env.is_service(addr)
}

/// Whether an address can be a client outside the cluster.
#[inline(always)]
fn is_outside<A: Family, E: Env<A>>(env: &mut E, addr: A) -> bool {
    !addr.is_loopback()
        && !addr.is_group()
        && addr != A::default()
        && !is_inside(env, addr)
        && env.peer(addr).is_none()
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
