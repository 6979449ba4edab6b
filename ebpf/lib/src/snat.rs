//! Records translated flows, and finds a source under which the backend can tell them apart.
//!
//! Replies are found by what the backend sees: its own address and port, and the source. As long as no other live flow
//! has the same, the client's own port stays. Otherwise another port is taken: of the client's own address where replies
//! pass this node anyway, of the gateway address where they otherwise would not.

use skep_abi::{Addr, Be16, CtFlags, CtKey, CtState, CtValue, DropReason, TcpSeen};

use crate::{
    conntrack::{Target, key_of, side},
    env::Env,
    frame::{Frame, SCTP},
};

/// Under whose address the backend sees a flow.
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

/// Records a translated flow: one entry for packets to the frontend, one for replies of the backend. The result is the
/// new source, where there is one. The frame is the client's packet, not translated yet.
///
/// # Errors
/// [`DropReason::SnatExhausted`], [`DropReason::FlowConflict`], [`DropReason::ConntrackFull`].
#[inline(always)]
pub fn establish<A: Addr, E: Env<A>>(
    env: &mut E,
    frame: &Frame<A>,
    backend: &Target<A>,
    set: u32,
    source: Source,
) -> Result<Option<Target<A>>, DropReason> {
    let mut value = CtValue {
        last_seen: env.tick(),
        set,
        nat_addr: frame.dst,
        peer_addr: A::default(),
        nat_port: frame.dst_port,
        peer_port: Be16::ZERO,
        original: frame.tcp,
        reply: TcpSeen::default(),
        flags: CtFlags::REVNAT,
    };
    let claimed = allocate(env, frame, backend, &mut value, source)?;
    let (key, from_b) = key_of(frame);
    value.nat_addr = backend.addr;
    value.nat_port = backend.port;
    value.flags = side(from_b).with(CtFlags::DNAT);
    if let Some(source) = claimed {
        value.peer_addr = source.addr;
        value.peer_port = source.port;
        value.flags = value.flags.with(CtFlags::SNAT);
    }
    env.insert_flow(&key, &value).ok_or(DropReason::ConntrackFull)?;
    Ok(claimed)
}

/// Claims the entry for replies.
#[inline(always)]
fn allocate<A: Addr, E: Env<A>>(
    env: &mut E,
    frame: &Frame<A>,
    backend: &Target<A>,
    value: &mut CtValue<A>,
    source: Source,
) -> Result<Option<Target<A>>, DropReason> {
    let (addr, exhausted) = match source {
        Source::Own => (frame.src, DropReason::FlowConflict),
        Source::Gateway => (env.gateway(), DropReason::SnatExhausted),
    };
    if addr == A::default() {
        return Err(exhausted);
    }
    let (first, last) = env.nat_ports();
    let own = frame.src_port.get();
    // SCTP's checksum covers the ports, and is not to be had in a program: only the client's own will do.
    let fixed = frame.protocol == SCTP;
    let keeps = source == Source::Own;
    if keeps || fixed || (own >= first && own <= last) {
        let port = frame.src_port;
        if claim(env, frame, backend, value, Target { addr, port }, keeps, keeps) {
            return Ok(if keeps { None } else { Some(Target { addr, port }) });
        }
    }
    if fixed {
        return Err(exhausted);
    }
    let span = last.wrapping_sub(first);
    for attempt in 0..RANDOM_TRIES {
        let offset = ((u64::from(env.random()) * (u64::from(span) + 1)) >> 32) as u16;
        let port = Be16::new(first.wrapping_add(offset));
        let closed = attempt >= TRIES_FOR_CLOSED;
        if claim(env, frame, backend, value, Target { addr, port }, false, closed) {
            return Ok(Some(Target { addr, port }));
        }
    }
    Err(exhausted)
}

/// Takes the entry that replies to a source would find, unless another flow lives there. `untouched` says that the
/// source is the client itself; `closed`, that the entry of a closed flow may be taken.
#[inline(always)]
fn claim<A: Addr, E: Env<A>>(
    env: &mut E,
    frame: &Frame<A>,
    backend: &Target<A>,
    value: &mut CtValue<A>,
    source: Target<A>,
    untouched: bool,
    closed: bool,
) -> bool {
    let (key, from_b) =
        CtKey::canonical(source.addr, source.port, backend.addr, backend.port, frame.protocol);
    value.flags = side(from_b).with(CtFlags::REVNAT);
    if !untouched {
        value.peer_addr = frame.src;
        value.peer_port = frame.src_port;
        value.flags = value.flags.with(CtFlags::SNAT);
    }
    match env.flow(&key) {
        None => env.claim_flow(&key, value).is_some(),
        Some(old) => {
            let same = old.flags.any(CtFlags::REVNAT)
                && old.nat_port == value.nat_port
                && old.peer_port == value.peer_port
                && old.nat_addr == value.nat_addr
                && old.peer_addr == value.peer_addr;
            let over = closed && CtState::of(old.original, old.reply) == CtState::Closed;
            if !same && !over {
                return false;
            }
            *old = *value;
            true
        }
    }
}

#[cfg(test)]
mod tests;
