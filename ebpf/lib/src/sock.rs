//! Services at the socket: translated once, when an application connects or sends, and back when it asks who it talks to.

use skep_abi::{Addr, BackendKey, Be16, ServiceKey, SockKey, SockValue};

use crate::{
    conntrack::Target,
    env::SockEnv,
    frame::UDP,
    lb::{Pick, pick},
};

/// What becomes of a socket call.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SockVerdict<A> {
    /// Not a Service: as the application said.
    Pass,
    /// To this address instead.
    Translate(Target<A>),
    /// A Service without backends: the call fails.
    Refuse,
}

/// An application connects to, or sends a datagram to, an address.
#[inline(always)]
pub fn outgoing<A: Addr, E: SockEnv<A>>(
    env: &mut E,
    cookie: u64,
    addr: A,
    port: Be16,
    protocol: u8,
) -> SockVerdict<A> {
    let Some(service) = env.service(&ServiceKey::new(addr, port, protocol)) else { return SockVerdict::Pass };
    let front = SockKey::new(cookie, addr, port, protocol);
    // Datagrams of one socket stay with one backend as long as it is there.
    if protocol == UDP
        && let Some(last) = env.socket(&front)
        && last.service == service.id
        && u32::from(last.slot) < u32::from(service.count)
        && let Some(backend) = env.backend(&BackendKey { service: service.id, slot: u32::from(last.slot) })
        && backend.addr == last.addr
        && backend.port == last.port
    {
        return SockVerdict::Translate(Target { addr: backend.addr, port: backend.port });
    }
    let Some(Pick { backend, slot }) = pick(env, &service) else { return SockVerdict::Refuse };
    let back = SockKey::new(cookie, backend.addr, backend.port, protocol);
    let shown = SockValue { addr, port, slot, service: service.id };
    // When there is no room the connection still works; only the address shown to the application is the backend's.
    let _no_room = env.insert_socket(&back, &shown);
    if protocol == UDP {
        let chosen = SockValue { addr: backend.addr, port: backend.port, slot, service: service.id };
        let _no_room = env.insert_socket(&front, &chosen);
    }
    SockVerdict::Translate(Target { addr: backend.addr, port: backend.port })
}

/// An application asks for its peer, or receives a datagram: a backend is shown as the frontend it was reached through.
#[inline(always)]
pub fn incoming<A: Addr, E: SockEnv<A>>(
    env: &mut E,
    cookie: u64,
    addr: A,
    port: Be16,
    protocol: u8,
) -> Option<Target<A>> {
    let shown = env.socket(&SockKey::new(cookie, addr, port, protocol))?;
    Some(Target { addr: shown.addr, port: shown.port })
}
