//! Uplinks before the stack (XDP): drops, and packets for backends of other nodes.
//!
//! Everything else passes, to be handled by the uplink's classifier, which finds what was decided here in conntrack.

use skep_abi::{DropReason, V6};

use super::{
    Action,
    uplink::{decide, source_for},
};
use crate::{
    conntrack,
    env::Env,
    family::Family,
    flow::{Fresh, apply, commit},
    frame::Content,
    packet::Packet,
    room::Room,
};

/// A packet from the network. [`Action::Tunnel`] and [`Action::TunnelOutside`] are for the program to carry out,
/// everything else is [`Action::Pass`]. `way` says whether the program can reach a node of the underlay right now: if
/// not, the packet passes as it came.
///
/// # Errors
/// Why the packet must be dropped.
#[inline(always)]
pub fn xdp<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    room: &mut Room<A>,
    way: impl FnOnce(V6) -> bool,
) -> Result<(), DropReason> {
    room.action = Action::Pass;
    if A::parse(packet, &mut room.frame).is_err() {
        return Ok(());
    }
    if room.frame.content != Content::Ports || room.frame.is_fragment || !decide(env, room)? {
        return Ok(());
    }
    match room.action {
        Action::Tunnel | Action::TunnelOutside => {
            if !way(room.node) {
                room.action = Action::Pass;
                return Ok(());
            }
            commit(env, room, source_for(&room.action))?;
            apply(env, packet, room)
        }
        _ => {
            leave(env, room)?;
            room.action = Action::Pass;
            Ok(())
        }
    }
}

/// Records what was decided about a packet, without doing it.
#[inline(always)]
fn leave<A: Family, E: Env<A>>(env: &mut E, room: &mut Room<A>) -> Result<(), DropReason> {
    if room.plan.fresh != Fresh::Known {
        commit(env, room, source_for(&room.action))?;
    }
    if room.plan.closes {
        // The classifier will not notice any more.
        let Room { frame, plan, .. } = &mut *room;
        if plan.new_source {
            (frame.src, frame.src_port) = (plan.source.addr, plan.source.port);
        }
        (frame.dst, frame.dst_port) = (plan.to.addr, plan.to.port);
        conntrack::mirror(env, room);
    }
    Ok(())
}
