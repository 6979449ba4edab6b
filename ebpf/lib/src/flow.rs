//! Ties conntrack, load balancing, translation and policy together: what every hook does with an IP packet.

use skep_abi::{DropReason, Scope, ServiceKey, ServiceValue};

use crate::{
    conntrack::{self, Lookup, Target},
    env::Env,
    family::Family,
    frame::{Content, Frame},
    icmp, lb,
    nat::{End, rewrite},
    packet::Packet,
    policy::{self, Side},
};

/// Whether a hook translates Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Services {
    /// Packets to a frontend go to a backend.
    Translate,
    /// Only flows that are translated already are followed.
    Follow,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// It goes where its (perhaps new) destination says.
    Forward,
    /// Its source became a frontend: it is a reply, and must not be routed back to where the backend is.
    SourceTranslated,
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

/// Tracks a packet, translates it and asks policy.
///
/// # Errors
/// Why the packet must be dropped.
#[inline(always)]
pub fn handle<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    frame: &mut Frame<A>,
    services: Services,
) -> Result<Handled, DropReason> {
    if frame.content == Content::Error {
        let before = frame.src;
        icmp::translate(env, packet, frame)?;
        return Ok(if frame.src == before { Handled::Forward } else { Handled::SourceTranslated });
    }
    fragments(env, frame)?;
    match conntrack::lookup(env, frame) {
        Lookup::Reply(None) => return Ok(Handled::Forward),
        Lookup::Reply(Some(frontend)) => {
            rewrite(packet, frame, End::Source, frontend).ok_or(DropReason::RewriteFailed)?;
            return Ok(Handled::SourceTranslated);
        }
        Lookup::Original(None) => {}
        Lookup::Original(Some(backend)) => {
            rewrite(packet, frame, End::Destination, backend).ok_or(DropReason::RewriteFailed)?;
        }
        Lookup::New => start(env, packet, frame, services)?,
    }
    policy::verdict(env, frame, Side::Egress).enforce()?;
    policy::verdict(env, frame, Side::Ingress).enforce()?;
    Ok(Handled::Forward)
}

/// The first packet of a flow.
#[inline(always)]
fn start<A: Family, P: Packet, E: Env<A>>(
    env: &mut E,
    packet: &mut P,
    frame: &mut Frame<A>,
    services: Services,
) -> Result<(), DropReason> {
    if services == Services::Translate {
        let key = ServiceKey::new(frame.dst, frame.dst_port, frame.protocol, Scope::INSIDE);
        if let Some(service) = env.service(&key) {
            let backend = choose(env, frame, &service)?;
            conntrack::create_translated(env, frame, backend, service.set)?;
            return rewrite(packet, frame, End::Destination, backend).ok_or(DropReason::RewriteFailed);
        }
        if env.is_service(frame.dst) {
            return Err(DropReason::NoService);
        }
    }
    conntrack::create(env, frame)
}

/// A backend for a new flow: not the sender itself, and not where another live flow has the same addresses and ports.
#[inline(always)]
fn choose<A: Family, E: Env<A>>(
    env: &mut E,
    frame: &Frame<A>,
    service: &ServiceValue,
) -> Result<Target<A>, DropReason> {
    let first = lb::pick(env, service).ok_or(DropReason::NoBackend)?;
    let target = Target { addr: first.backend.addr, port: first.backend.port };
    let obstacle = if target.addr == frame.src {
        DropReason::Hairpin
    } else if conntrack::is_taken(env, frame, target) {
        DropReason::FlowConflict
    } else {
        return Ok(target);
    };
    let second = lb::pick_next(env, service, first.slot).ok_or(obstacle)?;
    let target = Target { addr: second.backend.addr, port: second.backend.port };
    if target.addr == frame.src {
        return Err(DropReason::Hairpin);
    }
    if conntrack::is_taken(env, frame, target) {
        return Err(DropReason::FlowConflict);
    }
    Ok(target)
}

#[cfg(test)]
mod tests;
