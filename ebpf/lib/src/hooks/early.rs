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
    way: impl FnOnce(V6) -> bool,
) -> Result<Action, DropReason> {
    let Ok(mut frame) = A::parse(packet) else { return Ok(Action::Pass) };
    if frame.content != Content::Ports || frame.fragment.is_some() {
        return Ok(Action::Pass);
    }
    let Some((mut plan, action)) = decide(env, &mut frame)? else { return Ok(Action::Pass) };
    let elsewhere = match action {
        Action::Tunnel(node) | Action::TunnelOutside(node) => {
            if !way(node) {
                return Ok(Action::Pass);
            }
            true
        }
        _ => false,
    };
    if elsewhere || plan.fresh != Fresh::Known {
        commit(env, &frame, &mut plan, source_for(&action))?;
    }
    if elsewhere {
        apply(env, packet, &mut frame, &plan)?;
        return Ok(action);
    }
    if plan.closes {
        // The classifier will not notice any more.
        if let Some(source) = plan.source {
            (frame.src, frame.src_port) = (source.addr, source.port);
        }
        (frame.dst, frame.dst_port) = (plan.to.addr, plan.to.port);
        conntrack::mirror(env, &frame);
    }
    Ok(Action::Pass)
}
