//! Services at the socket: translated once, when an application connects or sends, and back when it asks who it talks to.

use skep_abi::{Addr, AffinityKey, BackendKey, Be16, PeerFlags, Scope, SockKey, SockValue};

use crate::{
    conntrack::Target,
    env::SockEnv,
    frame::UDP,
    lb::{self, Pick},
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

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Cookie of the socket.
    pub cookie: u64,
    /// Cookie of its network namespace: all sockets of a pod are one client.
    pub netns: u64,
}

/// An application connects to, or sends a datagram to, an address.
#[inline(always)]
pub fn outgoing<A: Addr, E: SockEnv<A>>(
    env: &mut E,
    caller: &Caller,
    addr: A,
    port: Be16,
    protocol: u8,
) -> SockVerdict<A> {
    let cookie = caller.cookie;
    let to = Target { addr, port };
    let Some(service) = lb::lookup(env, &to, protocol, Scope::INSIDE, PeerFlags(0)) else {
        return SockVerdict::Pass;
    };
    let front = SockKey::new(cookie, addr, port, protocol);
    // Datagrams of one socket stay with one backend as long as it is there.
    if protocol == UDP
        && let Some(last) = env.socket(&front)
        && last.set == service.set
        && u32::from(last.slot) < u32::from(service.count)
        && let Some(backend) = env.backend(&BackendKey { set: service.set, slot: u32::from(last.slot) })
        && backend.addr == last.addr
        && backend.port == last.port
    {
        return SockVerdict::Translate(Target { addr: backend.addr, port: backend.port });
    }
    let client = AffinityKey::netns(service.set, caller.netns);
    let Some(Pick { backend, slot }) = lb::choose(env, &service, &client) else { return SockVerdict::Refuse };
    let back = SockKey::new(cookie, backend.addr, backend.port, protocol);
    let shown = SockValue { addr, port, slot, set: service.set };
    // When there is no room the connection still works; only the address shown to the application is the backend's.
    let _no_room = env.insert_socket(&back, &shown);
    if protocol == UDP {
        let chosen = SockValue { addr: backend.addr, port: backend.port, slot, set: service.set };
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

#[cfg(test)]
mod tests {
    use skep_abi::{BackendValue, V4, V6};

    use super::*;
    use crate::fake::{FakeEnv, Numbered};

    const TCP: u8 = 6;

    fn caller(cookie: u64) -> Caller {
        Caller { cookie, netns: 1 }
    }

    fn translated_and_shown<A: Numbered>() {
        let mut env = FakeEnv::<A>::new();
        let (frontend, backend) = (A::numbered(96, 1), A::numbered(244, 7));
        env.add_service(frontend, 80, TCP, &[(backend, 8080)]);
        let verdict = outgoing(&mut env, &caller(42), frontend, Be16::new(80), TCP);
        assert_eq!(verdict, SockVerdict::Translate(Target { addr: backend, port: Be16::new(8080) }));
        let shown = incoming(&mut env, 42, backend, Be16::new(8080), TCP);
        assert_eq!(shown, Some(Target { addr: frontend, port: Be16::new(80) }));
        assert_eq!(incoming(&mut env, 43, backend, Be16::new(8080), TCP), None, "another socket's peer");
    }

    #[test]
    fn a_socket_talks_to_the_backend_and_sees_the_frontend_in_both_families() {
        translated_and_shown::<V4>();
        translated_and_shown::<V6>();
    }

    #[test]
    fn other_addresses_pass_and_empty_services_refuse() {
        let mut env = FakeEnv::<V4>::new();
        let frontend = V4::numbered(96, 1);
        env.add_service(frontend, 80, TCP, &[]);
        assert_eq!(outgoing(&mut env, &caller(1), frontend, Be16::new(80), TCP), SockVerdict::Refuse);
        assert_eq!(outgoing(&mut env, &caller(1), frontend, Be16::new(81), TCP), SockVerdict::Pass);
        assert_eq!(outgoing(&mut env, &caller(1), frontend, Be16::new(80), UDP), SockVerdict::Pass);
    }

    #[test]
    fn datagrams_of_a_socket_stay_with_a_backend_until_it_goes() {
        let mut env = FakeEnv::<V4>::new();
        let frontend = V4::numbered(96, 1);
        let backends = [(V4::numbered(244, 7), 53), (V4::numbered(244, 8), 53)];
        env.add_service(frontend, 53, UDP, &backends);
        let send = |env: &mut FakeEnv<V4>| match outgoing(env, &caller(1), frontend, Be16::new(53), UDP) {
            SockVerdict::Translate(to) => to.addr,
            other => panic!("{other:?}"),
        };
        let first = send(&mut env);
        for _ in 0..16 {
            assert_eq!(send(&mut env), first);
        }
        let replacement = V4::numbered(244, 9);
        for slot in 0..2 {
            let key = BackendKey { set: 1, slot };
            env.backends.push((key, BackendValue::new(replacement, Be16::new(53))));
        }
        assert_eq!(send(&mut env), replacement);
    }
}
