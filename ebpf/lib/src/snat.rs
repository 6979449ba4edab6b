//! Records translated flows, and finds a source under which the backend can tell them apart.
//!
//! Replies are found by what the backend sees: its own address and port, and the source. As long as no other live flow
//! has the same, the client's own port stays. Otherwise another port is taken: of the client's own address where replies
//! pass this node anyway, of the gateway address where they otherwise would not.

use skep_abi::{Addr, Be16, CtFlags, CtState, CtValue, DropReason};

use crate::{
    conntrack::{begin, set_key, side},
    env::Env,
    frame::SCTP,
    room::Room,
};

/// Under whose address the backend sees a flow.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The client's own.
    Own,
    /// The gateway's: replies come back to this node, whoever the client is.
    Gateway,
}

/// Ports that are tried by chance after the client's own.
const RANDOM_TRIES: u32 = 16;
/// Tries from this one on also take ports of flows that have just closed; before, these are left to cool down.
const TRIES_FOR_CLOSED: u32 = 8;

/// Records a translated flow: one entry for packets to the frontend, one for replies of the backend. The plan says which
/// backend, and then has the new source, if there is one. The packet is not translated yet.
///
/// # Errors
/// [`DropReason::SnatExhausted`], [`DropReason::FlowConflict`], [`DropReason::ConntrackFull`].
#[inline(never)]
pub fn establish<A: Addr, E: Env<A>>(
    env: &mut E,
    room: &mut Room<A>,
    source: Source,
) -> Result<(), DropReason> {
    let Room { frame, plan, flow, .. } = &mut *room;
    begin(flow, env.tick(), frame.tcp, CtFlags::REVNAT);
    flow.set = plan.set;
    (flow.nat_addr, flow.nat_port) = (frame.dst, frame.dst_port);
    plan.source.port = frame.src_port;
    let exhausted = match source {
        Source::Own => {
            plan.source.addr = frame.src;
            DropReason::FlowConflict
        }
        Source::Gateway => {
            plan.source.addr = env.gateway();
            DropReason::SnatExhausted
        }
    };
    if !allocate(env, room, source == Source::Own) {
        return Err(exhausted);
    }
    let Room { frame, plan, flow, key, .. } = &mut *room;
    let from_b = set_key(key, frame);
    (flow.nat_addr, flow.nat_port) = (plan.to.addr, plan.to.port);
    flow.flags = side(from_b).with(CtFlags::DNAT);
    (flow.peer_addr, flow.peer_port) = (A::default(), Be16::ZERO);
    if plan.new_source {
        (flow.peer_addr, flow.peer_port) = (plan.source.addr, plan.source.port);
        flow.flags = flow.flags.with(CtFlags::SNAT);
    }
    env.insert_flow(key, flow).ok_or(DropReason::ConntrackFull)
}

/// Claims the entry for replies: with the client's own port, or with others. `keeps` says that the plan's source is the
/// client itself.
#[inline(always)]
fn allocate<A: Addr, E: Env<A>>(env: &mut E, room: &mut Room<A>, keeps: bool) -> bool {
    if room.plan.source.addr == A::default() {
        return false;
    }
    let (first, last) = env.nat_ports();
    let own = room.frame.src_port.get();
    // SCTP's checksum covers the ports, and is not to be had in a program: only the client's own will do.
    let fixed = room.frame.protocol == SCTP;
    room.plan.new_source = !keeps;
    if (keeps || fixed || (own >= first && own <= last)) && claim(env, room, keeps) {
        return true;
    }
    if fixed {
        return false;
    }
    room.plan.new_source = true;
    let span = u64::from(last.wrapping_sub(first)) + 1;
    for attempt in 0..RANDOM_TRIES {
        let offset = ((u64::from(env.random()) * span) >> 32) as u16;
        room.plan.source.port = Be16::new(first.wrapping_add(offset));
        if claim(env, room, attempt >= TRIES_FOR_CLOSED) {
            return true;
        }
    }
    false
}

/// Takes the entry that replies to the plan's source would find, unless another flow lives there. `closed` says that the
/// entry of a closed flow may be taken.
#[inline(never)]
fn claim<A: Addr, E: Env<A>>(env: &mut E, room: &mut Room<A>, closed: bool) -> bool {
    let Room { frame, plan, flow, key, .. } = room;
    let from_b =
        key.set((&plan.source.addr, plan.source.port), (&plan.to.addr, plan.to.port), frame.protocol);
    flow.flags = side(from_b).with(CtFlags::REVNAT);
    if plan.new_source {
        (flow.peer_addr, flow.peer_port) = (frame.src, frame.src_port);
        flow.flags = flow.flags.with(CtFlags::SNAT);
    }
    match env.flow(key) {
        None => env.claim_flow(key, flow).is_some(),
        Some(old) => {
            let same = old.flags.any(CtFlags::REVNAT)
                && old.nat_port == flow.nat_port
                && old.peer_port == flow.peer_port
                && old.nat_addr == flow.nat_addr
                && old.peer_addr == flow.peer_addr;
            let over = closed && CtState::of(old.original, old.reply) == CtState::Closed;
            if same || over {
                replace(old, flow);
            }
            same || over
        }
    }
}

/// Field by field: a copy of the whole becomes a loop over its bytes.
#[inline(always)]
fn replace<A: Addr>(old: &mut CtValue<A>, new: &CtValue<A>) {
    old.last_seen = new.last_seen;
    old.set = new.set;
    (old.nat_addr, old.nat_port) = (new.nat_addr, new.nat_port);
    (old.peer_addr, old.peer_port) = (new.peer_addr, new.peer_port);
    (old.original, old.reply) = (new.original, new.reply);
    old.flags = new.flags;
}

#[cfg(test)]
mod tests;
