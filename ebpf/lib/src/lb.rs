//! Load balancing: which frontend a packet or a socket means, and which backend takes a new connection.
//!
//! Sockets, classifiers and XDP share this. [`affinity`] keeps clients with their backend, [`maglev`] gives outside
//! clients the same backend on every node; everybody else is spread at random.

use skep_abi::{
    Addr, AffinityKey, BackendKey, BackendValue, Be16, DropReason, PeerFlags, Scope, ServiceFlags,
    ServiceKey, ServiceValue, SourceKey,
};

use crate::{
    conntrack::Target,
    env::{Balancer, Env},
    family::Family,
    room::Room,
};

pub mod affinity;
pub mod maglev;

/// A backend that was picked, and its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick<A> {
    /// Where it is.
    pub backend: BackendValue<A>,
    /// In which slot.
    pub slot: u16,
}

impl<A: Addr> Pick<A> {
    /// Where packets go.
    #[inline(always)]
    pub fn target(&self) -> Target<A> {
        Target { addr: self.backend.addr, port: self.backend.port }
    }
}

/// The row of a frontend: by its address, or else as a node port on an address that has all of the `required` flags.
#[inline(always)]
pub fn lookup<A: Addr, E: Balancer<A>>(
    env: &mut E,
    to: &Target<A>,
    protocol: u8,
    scope: Scope,
    required: PeerFlags,
) -> Option<ServiceValue> {
    // Rows of node ports have no address: nobody may ask for them by saying so.
    if to.addr == A::default() {
        return None;
    }
    let mut key = ServiceKey::new(to.addr, to.port, protocol, scope);
    if let Some(service) = env.service(&key) {
        return Some(service);
    }
    if !is_node_port(env, to.port) {
        return None;
    }
    let peer = env.peer(to.addr)?;
    if !peer.flags.all(required.with(PeerFlags::NODE_PORT)) {
        return None;
    }
    key.addr = A::default();
    env.service(&key)
}

#[inline(always)]
fn is_node_port<A: Addr, E: Balancer<A>>(env: &E, port: Be16) -> bool {
    let (first, last) = env.node_ports();
    first != 0 && port.get() >= first && port.get() <= last
}

/// Finds the row of the frontend that a packet is for; says whether there is one.
#[inline(never)]
pub fn find<A: Addr, E: Balancer<A>>(
    env: &mut E,
    room: &mut Room<A>,
    scope: Scope,
    required: PeerFlags,
) -> bool {
    let to = room.frame.destination();
    match lookup(env, &to, room.frame.protocol, scope, required) {
        Some(service) => {
            room.service = service;
            true
        }
        None => false,
    }
}

/// Finds the row of a frontend for a client outside the cluster; says whether there is one: without, it is not a Service,
/// as far as that client is concerned.
///
/// # Errors
/// [`DropReason::SourceRange`], or [`DropReason::NoService`] when the row has just gone.
#[inline(always)]
pub fn find_outside<A: Addr, E: Env<A>>(env: &mut E, room: &mut Room<A>) -> Result<bool, DropReason> {
    if !find(env, room, Scope::INSIDE, PeerFlags::HOST) || !room.service.flags.any(ServiceFlags::EXTERNAL) {
        return Ok(false);
    }
    if room.service.flags.any(ServiceFlags::SPLIT.with(ServiceFlags::SOURCE_RANGES)) {
        refine(env, room)?;
    }
    Ok(true)
}

/// The row that an outside client ends up with, if it may.
#[inline(never)]
fn refine<A: Addr, E: Env<A>>(env: &mut E, room: &mut Room<A>) -> Result<(), DropReason> {
    let Room { frame, service, .. } = &mut *room;
    if service.flags.any(ServiceFlags::SPLIT) {
        let addr = if service.flags.any(ServiceFlags::NODE_PORT) { A::default() } else { frame.dst };
        let key = ServiceKey::new(addr, frame.dst_port, frame.protocol, Scope::OUTSIDE);
        *service = env.service(&key).ok_or(DropReason::NoService)?;
    }
    admit(env, room)
}

/// Finds the row of a frontend for backends of this node, for a packet that another node sent here untranslated.
///
/// # Errors
/// [`DropReason::NotOutside`], [`DropReason::SourceRange`].
#[inline(always)]
pub fn find_local<A: Addr, E: Env<A>>(env: &mut E, room: &mut Room<A>) -> Result<(), DropReason> {
    if !find(env, room, Scope::LOCAL, PeerFlags(0)) || !room.service.flags.any(ServiceFlags::EXTERNAL) {
        return Err(DropReason::NotOutside);
    }
    admit(env, room)
}

#[inline(always)]
fn admit<A: Addr, E: Env<A>>(env: &mut E, room: &Room<A>) -> Result<(), DropReason> {
    if room.service.flags.any(ServiceFlags::SOURCE_RANGES)
        && !env.in_source_range(&SourceKey::host(room.service.set, room.frame.src))
    {
        return Err(DropReason::SourceRange);
    }
    Ok(())
}

/// Why a Service without backends is not served.
#[inline(always)]
#[must_use]
pub fn why_empty(service: &ServiceValue) -> DropReason {
    if service.flags.any(ServiceFlags::SILENT) { DropReason::NoLocalBackend } else { DropReason::NoBackend }
}

/// A backend for a client in the cluster.
#[inline(always)]
pub fn choose<A: Addr, E: Balancer<A>>(
    env: &mut E,
    service: &ServiceValue,
    client: &AffinityKey,
) -> Option<Pick<A>> {
    if service.affinity == 0 {
        return pick(env, service);
    }
    let pick = match affinity::recall(env, service, client) {
        Some(pick) => pick,
        None => pick(env, service)?,
    };
    affinity::remember(env, client, &pick);
    Some(pick)
}

/// Plans a new flow of a client outside the cluster: the backend by affinity, else by Maglev where the set has a table,
/// else by chance. `false`: there is none.
#[inline(never)]
pub fn choose_outside<A: Family, E: Env<A>>(env: &mut E, room: &mut Room<A>) -> bool {
    let Room { frame, service, plan, .. } = room;
    let sticky = service.affinity != 0;
    let client = AffinityKey::address(service.set, frame.src);
    let mut found = if sticky { affinity::recall(env, service, &client) } else { None };
    if found.is_none() && service.maglev != 0 {
        // Clients with affinity are told apart by address alone, so that every node sends them to the same backend.
        let hash = if sticky { maglev::hash_client(frame.src) } else { maglev::hash_flow(frame) };
        found = maglev::slot(env, service, hash).and_then(|slot| at(env, service, slot.into()));
    }
    if found.is_none() {
        found = pick(env, service);
    }
    let Some(pick) = found else { return false };
    if sticky {
        affinity::remember(env, &client, &pick);
    }
    plan.begin(pick.target(), service.set);
    true
}

/// The backend in a slot.
#[inline(always)]
pub fn at<A: Addr, E: Balancer<A>>(env: &mut E, service: &ServiceValue, slot: u32) -> Option<Pick<A>> {
    if slot >= u32::from(service.count) {
        return None;
    }
    let backend = env.backend(&BackendKey { set: service.set, slot })?;
    Some(Pick { backend, slot: slot as u16 })
}

/// Maps a random number onto `0..count` without a division.
#[inline(always)]
#[must_use]
pub const fn scale(random: u32, count: u16) -> u32 {
    ((random as u64 * count as u64) >> 32) as u32
}

/// Picks a random backend. A slot that has just vanished is replaced by slot zero, which is the last to go.
#[inline(always)]
pub fn pick<A: Addr, E: Balancer<A>>(env: &mut E, service: &ServiceValue) -> Option<Pick<A>> {
    let slot = scale(env.random(), service.count);
    match at(env, service, slot) {
        Some(pick) => Some(pick),
        None => at(env, service, 0),
    }
}

#[cfg(test)]
mod tests;
