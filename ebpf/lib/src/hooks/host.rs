//! The programs' side of the node-side veth pair.

use skep_abi::DropReason;

use super::{Action, check_own_source, route};
use crate::{
    env::Env,
    family::Family,
    flow::{Sender, handle},
    packet::Packet,
};

/// A packet of this node's processes to a Service or to a pod of another node.
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
    let _handled = handle(env, packet, &mut frame, Sender::Host)?;
    match route(env, frame.dst)? {
        // A backend on this very node: its answer would not pass here on the way back.
        Action::HostIngress => Err(DropReason::Hairpin),
        Action::World => Err(DropReason::NoRoute),
        action => Ok(action),
    }
}
