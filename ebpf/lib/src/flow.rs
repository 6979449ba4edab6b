//! Ties conntrack, load balancing, translation and policy together: what every hook does with an IP packet.
//!
//! First a [`Plan`] is made from what conntrack and the Services say, then policy is asked, then the flow is recorded
//! ([`commit`]), and only then is the packet rewritten ([`apply`]).

use skep_abi::{AffinityKey, CtFlags, DropReason, PeerFlags, Scope};

use crate::{
    conntrack::{self, Target},
    env::Env,
    family::Family,
    frame::{Content, Frame, SCTP},
    icmp, lb,
    nat::{End, rewrite},
    packet::Packet,
    policy,
    snat::{self, Source},
};

/// Who sent a packet, as far as it matters for what may be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A pod of this node: Services are translated, and ICMP errors are about packets that it got.
    Pod,
    /// This node: Services are translated.
    Host,
    /// Somebody else: only flows that are translated already are followed.
    Other,
}

/// What becomes, or became, of a packet.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// Nothing: the flow is known.
    Known,
    /// A flow that nobody translates.
    Direct,
    /// A flow that this set translates.
    Set(u32),
}

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan<A> {
    /// The new source, if it changes.
    pub source: Option<Target<A>>,
    /// Where the packet goes: the new destination of a translated packet, the backend of a forwarded one.
    pub to: Target<A>,
    /// What becomes of it.
    pub handled: Handled,
    /// What is still to be recorded.
    pub fresh: Fresh,
    /// The flow's other entry wants to know that this packet closes a direction.
    pub closes: bool,
}

impl<A: Family> Plan<A> {
    /// A packet that stays as it is.
    #[inline(always)]
    fn plain(frame: &Frame<A>, fresh: Fresh) -> Self {
        Self { source: None, to: frame.destination(), handled: Handled::Plain, fresh, closes: false }
    }

    /// The first packet of a flow to a backend.
    #[inline(always)]
    pub fn first(backend: Target<A>, set: u32) -> Self {
        Self {
            source: None,
            to: backend,
            handled: Handled::Translated,
            fresh: Fresh::Set(set),
            closes: false,
        }
    }
}

/// Finds the ports of later fragments, and remembers those of first ones.
///
/// # Errors
/// [`DropReason::FragmentUnknown`].
#[inline(always)]
pub fn fragments<A: Family, E: Env<A>>(env: &mut E, frame: &mut Frame<A>) -> Result<(), DropReason> {
    let Some(id) = frame.fragment else { return Ok(()) };
    let key = frame.fragment_key(id);
    if frame.content == Content::Fragment {
        let ports = env.fragment(&key).ok_or(DropReason::FragmentUnknown)?;
        frame.src_port = ports.src_port;
        frame.dst_port = ports.dst_port;
    } else {
        env.insert_fragment(&key, &frame.ports());
    }
    Ok(())
}

/// The plan for a packet of a known flow.
#[inline(always)]
pub fn follow<A: Family, E: Env<A>>(env: &mut E, frame: &Frame<A>) -> Option<Plan<A>> {
    let hit = conntrack::touch(env, frame)?;
    let value = &*hit.value;
    let mut plan = Plan::plain(frame, Fresh::Known);
    plan.closes = hit.closes;
    let nat = Target { addr: value.nat_addr, port: value.nat_port };
    let peer = Target { addr: value.peer_addr, port: value.peer_port };
    let both = value.flags.any(CtFlags::SNAT);
    if hit.is_reply {
        plan.handled = Handled::Reply;
        if value.flags.any(CtFlags::REVNAT) {
            plan.source = Some(nat);
            if both {
                plan.to = peer;
            }
        }
    } else if value.flags.any(CtFlags::DNAT) {
        plan.handled = Handled::Translated;
        plan.to = nat;
        if both {
            plan.source = Some(peer);
        }
    } else if value.flags.any(CtFlags::FORWARDED) {
        plan.handled = Handled::Forwarded;
        plan.to = nat;
    }
    Some(plan)
}

/// Asks policy and records the flow, if it is new. Afterwards the plan has its source.
///
/// # Errors
/// Why the packet must be dropped.
#[inline(always)]
pub fn commit<A: Family, E: Env<A>>(
    env: &mut E,
    frame: &Frame<A>,
    plan: &mut Plan<A>,
    source: Source,
) -> Result<(), DropReason> {
    if plan.handled == Handled::Reply {
        return Ok(());
    }
    policy::enforce(env, frame, &plan.to)?;
    match plan.fresh {
        Fresh::Known => Ok(()),
        Fresh::Direct => conntrack::create(env, frame),
        Fresh::Set(set) if plan.handled == Handled::Forwarded => {
            conntrack::create_forwarded(env, frame, &plan.to, set)
        }
        Fresh::Set(_) if frame.protocol == SCTP && frame.dst_port != plan.to.port => {
            Err(DropReason::SctpPort)
        }
        Fresh::Set(set) => {
            plan.source = snat::establish(env, frame, &plan.to, set, source)?;
            Ok(())
        }
    }
}

/// Rewrites a packet as planned.
///
/// # Errors
/// [`DropReason::RewriteFailed`].
#[inline(always)]
pub fn apply<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    frame: &mut Frame<A>,
    plan: &Plan<A>,
) -> Result<(), DropReason> {
    if plan.handled == Handled::Forwarded {
        return Ok(());
    }
    if let Some(source) = plan.source {
        rewrite(packet, frame, End::Source, source).ok_or(DropReason::RewriteFailed)?;
    }
    if plan.to != frame.destination() {
        rewrite(packet, frame, End::Destination, plan.to).ok_or(DropReason::RewriteFailed)?;
    }
    if plan.closes {
        conntrack::mirror(env, frame);
    }
    Ok(())
}

/// Tracks a packet of the cluster, translates it and asks policy.
///
/// # Errors
/// Why the packet must be dropped.
#[inline(always)]
pub fn handle<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    frame: &mut Frame<A>,
    sender: Sender,
) -> Result<Handled, DropReason> {
    match frame.content {
        Content::Error => return icmp::translate(env, packet, frame, sender),
        Content::Redirect => return Err(DropReason::IcmpRedirect),
        _ => {}
    }
    fragments(env, frame)?;
    let mut plan = match follow(env, frame) {
        Some(plan) => plan,
        None => start(env, frame, sender)?,
    };
    // Who reaches itself through a Service would answer itself directly: the answer must come back here.
    let source = if plan.to.addr == frame.src { Source::Gateway } else { Source::Own };
    commit(env, frame, &mut plan, source)?;
    apply(env, packet, frame, &plan)?;
    // A reply that nobody translates is nothing special.
    let plain = plan.handled == Handled::Reply && plan.source.is_none();
    Ok(if plain { Handled::Plain } else { plan.handled })
}

/// The plan for the first packet of a flow.
#[inline(always)]
fn start<A: Family, E: Env<A>>(env: &mut E, frame: &Frame<A>, sender: Sender) -> Result<Plan<A>, DropReason> {
    if sender != Sender::Other {
        let to = frame.destination();
        if let Some(service) = lb::find(env, &to, frame.protocol, Scope::INSIDE, PeerFlags(0)) {
            let client = AffinityKey::address(service.set, frame.src);
            let pick = lb::choose(env, &service, &client).ok_or_else(|| lb::why_empty(&service))?;
            return Ok(Plan::first(pick.target(), service.set));
        }
        if env.is_service(frame.dst) {
            return Err(DropReason::NoService);
        }
    }
    Ok(Plan::plain(frame, Fresh::Direct))
}

#[cfg(test)]
mod tests;
