//! Conntrack: which flow a packet belongs to, and in which direction.

use skep_abi::{Addr, Be16, CtFlags, CtKey, CtState, CtValue, DropReason, TcpSeen};

use crate::{env::Env, frame::Frame};

/// The other end of a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<A> {
    /// Address.
    pub addr: A,
    /// Port.
    pub port: Be16,
}

/// What conntrack knows of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<A> {
    /// Nothing: it starts a flow.
    New,
    /// It goes the way of the flow's first packet; the target is the backend of a translated flow.
    Original(Option<Target<A>>),
    /// It answers; the target is the frontend that a translated flow was addressed to.
    Reply(Option<Target<A>>),
}

#[inline(always)]
fn key_of<A: Addr>(frame: &Frame<A>) -> (CtKey<A>, bool) {
    CtKey::canonical(frame.src, frame.src_port, frame.dst, frame.dst_port, frame.protocol)
}

/// Whether a segment that opens a connection starts a new flow on an entry that is left from an older one.
#[inline(always)]
fn starts_over<A>(frame: &Frame<A>, value: &CtValue<A>, is_reply: bool) -> bool {
    if !frame.opens {
        return false;
    }
    match CtState::of(value.original, value.reply) {
        CtState::Closed => true,
        // The same client opens again what was open already: it has forgotten the old connection.
        _ => !is_reply && value.original.any(TcpSeen::MORE.with(TcpSeen::FIN)),
    }
}

/// Finds a packet's flow and notes that it was seen.
#[inline(always)]
pub fn lookup<A: Addr, E: Env<A>>(env: &mut E, frame: &Frame<A>) -> Lookup<A> {
    let (key, from_b) = key_of(frame);
    let now = env.tick();
    let Some(value) = env.flow(&key) else { return Lookup::New };
    let is_reply = value.flags.any(CtFlags::FROM_B) != from_b;
    if starts_over(frame, value, is_reply) {
        return Lookup::New;
    }
    if value.last_seen != now {
        value.last_seen = now;
    }
    let target = Target { addr: value.nat_addr, port: value.nat_port };
    let seen = if is_reply { &mut value.reply } else { &mut value.original };
    let merged = seen.with(frame.tcp);
    if *seen != merged {
        *seen = merged;
    }
    if is_reply {
        Lookup::Reply(value.flags.any(CtFlags::REVNAT).then_some(target))
    } else {
        Lookup::Original(value.flags.any(CtFlags::DNAT).then_some(target))
    }
}

/// Looks at a flow without touching it: its entry, and whether the packet answers.
#[inline(always)]
pub fn peek<A: Addr, E: Env<A>>(env: &mut E, frame: &Frame<A>) -> Option<(CtValue<A>, bool)> {
    let (key, from_b) = key_of(frame);
    let value = *env.flow(&key)?;
    Some((value, value.flags.any(CtFlags::FROM_B) != from_b))
}

/// Records a flow that nobody translates.
///
/// # Errors
/// [`DropReason::ConntrackFull`].
#[inline(always)]
pub fn create<A: Addr, E: Env<A>>(env: &mut E, frame: &Frame<A>) -> Result<(), DropReason> {
    let (key, from_b) = key_of(frame);
    let value =
        CtValue { last_seen: env.tick(), original: frame.tcp, flags: side(from_b), ..CtValue::default() };
    env.insert_flow(&key, &value).ok_or(DropReason::ConntrackFull)
}

/// Whether the flow from a client to a backend is in use by something else than a translation from this frontend.
#[inline(always)]
pub fn is_taken<A: Addr, E: Env<A>>(env: &mut E, frame: &Frame<A>, backend: Target<A>) -> bool {
    let direct = Frame { dst: backend.addr, dst_port: backend.port, ..*frame };
    let Some((value, _)) = peek(env, &direct) else { return false };
    let same =
        value.flags.any(CtFlags::REVNAT) && value.nat_addr == frame.dst && value.nat_port == frame.dst_port;
    !same && CtState::of(value.original, value.reply) != CtState::Closed
}

/// Records a translated flow: one entry for packets to the frontend, one for replies of the backend.
///
/// # Errors
/// [`DropReason::ConntrackFull`].
#[inline(always)]
pub fn create_translated<A: Addr, E: Env<A>>(
    env: &mut E,
    frame: &Frame<A>,
    backend: Target<A>,
    set: u32,
) -> Result<(), DropReason> {
    let now = env.tick();
    let (key, from_b) = key_of(frame);
    let mut value = CtValue {
        last_seen: now,
        set,
        nat_addr: backend.addr,
        nat_port: backend.port,
        original: frame.tcp,
        flags: side(from_b).with(CtFlags::DNAT),
        ..CtValue::default()
    };
    env.insert_flow(&key, &value).ok_or(DropReason::ConntrackFull)?;
    let (key, from_b) =
        CtKey::canonical(frame.src, frame.src_port, backend.addr, backend.port, frame.protocol);
    value.nat_addr = frame.dst;
    value.nat_port = frame.dst_port;
    value.flags = side(from_b).with(CtFlags::REVNAT);
    env.insert_flow(&key, &value).ok_or(DropReason::ConntrackFull)
}

#[inline(always)]
fn side(from_b: bool) -> CtFlags {
    if from_b { CtFlags::FROM_B } else { CtFlags::default() }
}
