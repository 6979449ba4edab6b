//! The programs' side of the node-side veth pair.

use skep_abi::DropReason;

use super::{Action, check_own_source, route_frame};
use crate::{
    env::Env,
    family::Family,
    flow::{Sender, handle},
    packet::Packet,
    room::Room,
};

/// A packet of this node's processes to a Service or to a pod of another node.
///
/// # Errors
/// Why the packet must be dropped.
#[inline(always)]
pub fn from_host<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    room: &mut Room<A>,
) -> Result<(), DropReason> {
    A::parse(packet, &mut room.frame)?;
    if room.frame.dst.is_group() {
        return Err(DropReason::GroupDestination);
    }
    check_own_source(env, room.frame.src)?;
    handle(env, packet, room, Sender::Host)?;
    route_frame(env, room)?;
    match room.action {
        // A backend on this very node: its answer would not pass here on the way back.
        Action::HostIngress => Err(DropReason::Hairpin),
        Action::World => Err(DropReason::NoRoute),
        _ => Ok(()),
    }
}
