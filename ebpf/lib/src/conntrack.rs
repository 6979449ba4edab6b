//! Conntrack: which flow a packet belongs to, and in which direction.

use skep_abi::{Addr, Be16, CtFlags, CtKey, CtState, CtValue, DropReason, TcpSeen};

use crate::{env::Env, frame::Frame, room::Room};

/// An address with a port: one end of a flow, or what a translation makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target<A> {
    /// Address.
    pub addr: A,
    /// Port.
    pub port: Be16,
}

/// A packet's flow.
#[derive(Debug)]
pub struct Hit<'e, A> {
    /// Its entry.
    pub value: &'e mut CtValue<A>,
    /// Whether the packet answers the flow's first one.
    pub is_reply: bool,
    /// Whether the packet is the first to close this direction of a translated flow: the flow's other entry wants to
    /// know, see [`mirror`].
    pub closes: bool,
}

/// Makes the key of a packet; says whether its source is side `b`.
#[inline(always)]
pub fn set_key<A: Addr>(key: &mut CtKey<A>, frame: &Frame<A>) -> bool {
    key.set((&frame.src, frame.src_port), (&frame.dst, frame.dst_port), frame.protocol)
}

/// The flag of a flow whose first packet came from side `b`, or not.
#[inline(always)]
pub fn side(from_b: bool) -> CtFlags {
    if from_b { CtFlags::FROM_B } else { CtFlags::default() }
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

/// Finds a packet's flow and notes that it was seen. `None`: it starts a flow.
#[inline(always)]
pub fn touch<'e, A: Addr, E: Env<A>>(
    env: &'e mut E,
    frame: &Frame<A>,
    key: &mut CtKey<A>,
) -> Option<Hit<'e, A>> {
    let from_b = set_key(key, frame);
    let now = env.tick();
    let value = env.flow(key)?;
    let is_reply = value.flags.any(CtFlags::FROM_B) != from_b;
    if starts_over(frame, value, is_reply) {
        return None;
    }
    if value.last_seen != now {
        value.last_seen = now;
    }
    let seen = if is_reply { &mut value.reply } else { &mut value.original };
    let merged = seen.with(frame.tcp);
    let mut closes = false;
    if *seen != merged {
        *seen = merged;
        closes = frame.tcp.any(TcpSeen::FIN.with(TcpSeen::RST))
            && value.flags.any(CtFlags::DNAT.with(CtFlags::REVNAT));
    }
    // Nobody sees the replies of a forwarded flow; a client that goes on has read one.
    if value.flags.any(CtFlags::FORWARDED) && frame.tcp.any(TcpSeen::MORE) && !value.reply.any(TcpSeen::ANY) {
        value.reply = TcpSeen::ANY;
    }
    Some(Hit { value, is_reply, closes })
}

/// Tells the other entry of a translated flow that a packet closed one direction. The frame is the packet after its
/// translation, which is how the other entry knows it.
#[inline(never)]
pub fn mirror<A: Addr, E: Env<A>>(env: &mut E, room: &mut Room<A>) {
    let Room { frame, key, .. } = room;
    let from_b = set_key(key, frame);
    if let Some(value) = env.flow(key) {
        let is_reply = value.flags.any(CtFlags::FROM_B) != from_b;
        let seen = if is_reply { &mut value.reply } else { &mut value.original };
        *seen = seen.with(frame.tcp);
    }
}

/// Looks at a flow without touching it: what its entry is, and whether the packet answers.
#[inline(always)]
pub fn peek<A: Addr, E: Env<A>>(env: &mut E, room: &mut Room<A>) -> Option<(CtFlags, bool)> {
    let Room { frame, key, .. } = room;
    let from_b = set_key(key, frame);
    let flags = env.flow(key)?.flags;
    Some((flags, flags.any(CtFlags::FROM_B) != from_b))
}

/// Records a flow that nobody translates.
///
/// # Errors
/// [`DropReason::ConntrackFull`].
#[inline(always)]
pub fn create<A: Addr, E: Env<A>>(env: &mut E, room: &mut Room<A>) -> Result<(), DropReason> {
    let Room { frame, flow, key, .. } = &mut *room;
    let from_b = set_key(key, frame);
    begin(flow, env.tick(), frame.tcp, side(from_b));
    flow.set = 0;
    (flow.nat_addr, flow.nat_port) = (A::default(), Be16::ZERO);
    env.insert_flow(key, flow).ok_or(DropReason::ConntrackFull)
}

/// Records that a client's packets go on untranslated to the node of a backend.
///
/// # Errors
/// [`DropReason::ConntrackFull`].
#[inline(never)]
pub fn create_forwarded<A: Addr, E: Env<A>>(env: &mut E, room: &mut Room<A>) -> Result<(), DropReason> {
    let Room { frame, flow, key, plan, .. } = &mut *room;
    let from_b = set_key(key, frame);
    begin(flow, env.tick(), frame.tcp, side(from_b).with(CtFlags::FORWARDED));
    flow.set = plan.set;
    (flow.nat_addr, flow.nat_port) = (plan.to.addr, plan.to.port);
    env.insert_flow(key, flow).ok_or(DropReason::ConntrackFull)
}

/// An entry without a peer. Field by field: it lies where an older one was.
#[inline(always)]
pub fn begin<A: Addr>(flow: &mut CtValue<A>, now: u32, tcp: TcpSeen, flags: CtFlags) {
    flow.last_seen = now;
    flow.peer_addr = A::default();
    flow.peer_port = Be16::ZERO;
    flow.original = tcp;
    flow.reply = TcpSeen::default();
    flow.flags = flags;
}
