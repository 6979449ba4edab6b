//! Ties conntrack, load balancing, translation and policy together: what every hook does with an IP packet.
//!
//! First a [`Plan`] is made from what conntrack and the Services say, then policy is asked, then the flow is recorded
//! ([`commit`]), and only then is the packet rewritten ([`apply`]). Each step is a function of its own that leaves its
//! result in the [`Room`].

use skep_abi::{AffinityKey, CtFlags, DropReason, PeerFlags, Scope};

use crate::{
    conntrack::{self, Target},
    env::Env,
    family::Family,
    frame::{Content, SCTP},
    icmp, lb,
    nat::{End, rewrite},
    packet::Packet,
    policy,
    room::Room,
    snat::{self, Source},
};

/// Who sent a packet, as far as it matters for what may be done with it.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A pod of this node: Services are translated, and ICMP errors are about packets that it got.
    Pod,
    /// This node: Services are translated.
    Host,
    /// Another node, through the tunnel: what asks for an address of this node may mean a frontend that only this node
    /// knows, a host port; everything else was translated where it came from.
    Peer,
    /// Somebody else: only flows that are translated already are followed.
    Other,
}

/// What becomes, or became, of a packet.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// Nobody translates it.
    Plain,
    /// It goes to a backend instead of a frontend.
    Translated,
    /// Its source becomes a frontend: it is a reply, and must not be routed back to where the backend is.
    Reply,
    /// It goes untranslated to the node of a backend.
    Forwarded,
}

/// What is still to be recorded.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// Nothing: the flow is known.
    Known,
    /// A flow that nobody translates.
    Direct,
    /// A flow that a set translates.
    Set,
}

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan<A> {
    /// The new source, if `new_source` says so.
    pub source: Target<A>,
    /// Where the packet goes: the new destination of a translated packet, the backend of a forwarded one.
    pub to: Target<A>,
    /// The set that translates a fresh flow.
    pub set: u32,
    /// What becomes of it.
    pub handled: Handled,
    /// What is still to be recorded.
    pub fresh: Fresh,
    /// The source changes.
    pub new_source: bool,
    /// The flow's other entry wants to know that this packet closes a direction.
    pub closes: bool,
}

impl<A: Family> Plan<A> {
    /// A packet that goes to `to`.
    #[inline(always)]
    fn set(&mut self, to: Target<A>, handled: Handled, fresh: Fresh) {
        self.to = to;
        self.handled = handled;
        self.fresh = fresh;
        self.new_source = false;
        self.closes = false;
    }

    /// The first packet of a flow to a backend.
    #[inline(always)]
    pub fn begin(&mut self, backend: Target<A>, set: u32) {
        self.set(backend, Handled::Translated, Fresh::Set);
        self.set = set;
    }
}

/// Finds the ports of later fragments, and remembers those of first ones.
///
/// # Errors
/// [`DropReason::FragmentUnknown`].
#[inline(always)]
pub fn fragments<A: Family, E: Env<A>>(env: &mut E, room: &mut Room<A>) -> Result<(), DropReason> {
    if room.frame.is_fragment { reassemble(env, room) } else { Ok(()) }
}

#[inline(never)]
fn reassemble<A: Family, E: Env<A>>(env: &mut E, room: &mut Room<A>) -> Result<(), DropReason> {
    let frame = &mut room.frame;
    let key = frame.fragment_key();
    if frame.content == Content::Fragment {
        let ports = env.fragment(&key).ok_or(DropReason::FragmentUnknown)?;
        frame.src_port = ports.src_port;
        frame.dst_port = ports.dst_port;
    } else {
        env.insert_fragment(&key, &frame.ports());
    }
    Ok(())
}

/// Makes the plan for a packet of a known flow; says whether there is one.
#[inline(never)]
pub fn follow<A: Family, E: Env<A>>(env: &mut E, room: &mut Room<A>) -> bool {
    let Room { frame, plan, key, .. } = room;
    let Some(hit) = conntrack::touch(env, frame, key) else { return false };
    let value = &*hit.value;
    let handled = match (hit.is_reply, value.flags) {
        (true, _) => Handled::Reply,
        (_, flags) if flags.any(CtFlags::DNAT) => Handled::Translated,
        (_, flags) if flags.any(CtFlags::FORWARDED) => Handled::Forwarded,
        _ => Handled::Plain,
    };
    plan.set(frame.destination(), handled, Fresh::Known);
    plan.closes = hit.closes;
    let nat = Target { addr: value.nat_addr, port: value.nat_port };
    let peer = Target { addr: value.peer_addr, port: value.peer_port };
    let both = value.flags.any(CtFlags::SNAT);
    if hit.is_reply {
        if value.flags.any(CtFlags::REVNAT) {
            plan.source = nat;
            plan.new_source = true;
            if both {
                plan.to = peer;
            }
        }
    } else if value.flags.any(CtFlags::DNAT.with(CtFlags::FORWARDED)) {
        plan.to = nat;
        if both {
            plan.source = peer;
            plan.new_source = true;
        }
    }
    true
}

/// Asks policy and records the flow, if it is new. Afterwards the plan has its source.
///
/// # Errors
/// Why the packet must be dropped.
#[inline(always)]
pub fn commit<A: Family, E: Env<A>>(
    env: &mut E,
    room: &mut Room<A>,
    source: Source,
) -> Result<(), DropReason> {
    if room.plan.handled == Handled::Reply {
        return Ok(());
    }
    policy::enforce(env, &room.frame, &room.plan.to)?;
    if room.plan.fresh == Fresh::Known { Ok(()) } else { record(env, room, source) }
}

#[inline(never)]
fn record<A: Family, E: Env<A>>(env: &mut E, room: &mut Room<A>, source: Source) -> Result<(), DropReason> {
    if room.plan.fresh == Fresh::Direct {
        return conntrack::create(env, room);
    }
    if room.plan.handled == Handled::Forwarded {
        return conntrack::create_forwarded(env, room);
    }
    if room.frame.protocol == SCTP && room.frame.dst_port != room.plan.to.port {
        return Err(DropReason::SctpPort);
    }
    snat::establish(env, room, source)
}

/// Rewrites a packet as planned.
///
/// # Errors
/// [`DropReason::RewriteFailed`].
#[inline(always)]
pub fn apply<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    room: &mut Room<A>,
) -> Result<(), DropReason> {
    match room.plan.handled {
        Handled::Plain | Handled::Forwarded => return Ok(()),
        Handled::Reply if !room.plan.new_source => return Ok(()),
        Handled::Reply | Handled::Translated => {}
    }
    if room.plan.new_source {
        turn(packet, room, End::Source)?;
    }
    if room.plan.to != room.frame.destination() {
        turn(packet, room, End::Destination)?;
    }
    if room.plan.closes {
        conntrack::mirror(env, room);
    }
    Ok(())
}

/// Rewrites one end of a packet as planned.
#[inline(never)]
fn turn<A: Family, P: Packet>(packet: &mut P, room: &mut Room<A>, end: End) -> Result<(), DropReason> {
    let Room { frame, plan, .. } = room;
    let to = match end {
        End::Source => &plan.source,
        End::Destination => &plan.to,
    };
    rewrite(packet, frame, end, to).ok_or(DropReason::RewriteFailed)
}

/// Tracks a packet of the cluster, translates it and asks policy. Afterwards the plan says what became of it.
///
/// # Errors
/// Why the packet must be dropped.
#[inline(always)]
pub fn handle<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    room: &mut Room<A>,
    sender: Sender,
) -> Result<(), DropReason> {
    match room.frame.content {
        Content::Error => return icmp::translate(env, packet, room, sender),
        Content::Redirect => return Err(DropReason::IcmpRedirect),
        _ => {}
    }
    fragments(env, room)?;
    if !follow(env, room) {
        start(env, room, sender)?;
    }
    // Who reaches itself through a Service would answer itself directly: the answer must come back here.
    let source = if room.plan.to.addr == room.frame.src { Source::Gateway } else { Source::Own };
    commit(env, room, source)?;
    apply(env, packet, room)?;
    // A reply that nobody translates is nothing special.
    if room.plan.handled == Handled::Reply && !room.plan.new_source {
        room.plan.handled = Handled::Plain;
    }
    Ok(())
}

/// Whether an address is this node's.
#[inline(always)]
fn is_own<A: Family, E: Env<A>>(env: &mut E, addr: A) -> bool {
    env.peer(addr).is_some_and(|peer| peer.flags.any(PeerFlags::HOST))
}

/// Makes the plan for the first packet of a flow.
#[inline(never)]
fn start<A: Family, E: Env<A>>(env: &mut E, room: &mut Room<A>, sender: Sender) -> Result<(), DropReason> {
    let asks = match sender {
        Sender::Pod | Sender::Host => true,
        Sender::Peer => is_own(env, room.frame.dst),
        Sender::Other => false,
    };
    if asks {
        if lb::find(env, room, Scope::INSIDE, PeerFlags(0)) {
            let client = AffinityKey::address(room.service.set, room.frame.src);
            let pick = lb::choose(env, &room.service, &client).ok_or_else(|| lb::why_empty(&room.service))?;
            room.plan.begin(pick.target(), room.service.set);
            return Ok(());
        }
        if sender != Sender::Peer && env.is_service(room.frame.dst) {
            return Err(DropReason::NoService);
        }
    }
    room.plan.set(room.frame.destination(), Handled::Plain, Fresh::Direct);
    Ok(())
}

#[cfg(test)]
mod tests;
