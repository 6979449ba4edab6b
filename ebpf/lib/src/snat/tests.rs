//! Source ports in memory: never one that is in use, the client's own where possible, and an end when there are none.

use std::collections::HashMap;

use proptest::prelude::*;
use skep_abi::{CtKey, TcpSeen, V4, V6};

use super::*;
use crate::{
    conntrack::Target,
    fake::{FakeEnv, Numbered, parsed, tcp, udp},
    frame::Frame,
};

fn world<A: Numbered>() -> FakeEnv<A> {
    let mut env = FakeEnv::new();
    env.gateway = A::numbered(244, 1);
    env
}

fn target<A: Numbered>(area: u8, number: u8, port: u16) -> Target<A> {
    Target { addr: A::numbered(area, number), port: Be16::new(port) }
}

fn open<A: Numbered>(
    env: &mut FakeEnv<A>,
    client: (u8, u16),
    frontend: u8,
    backend: Target<A>,
    source: Source,
) -> Result<Option<Target<A>>, DropReason> {
    let packet = tcp((A::numbered(200, client.0), client.1), (A::numbered(96, frontend), 80), 2);
    run(env, parsed(&packet).unwrap(), backend, source)
}

fn run<A: Numbered>(
    env: &mut FakeEnv<A>,
    frame: Frame<A>,
    backend: Target<A>,
    source: Source,
) -> Result<Option<Target<A>>, DropReason> {
    let mut room = Room::new();
    room.frame = frame;
    room.plan.begin(backend, 1);
    establish(env, &mut room, source)?;
    Ok(room.plan.new_source.then_some(room.plan.source))
}

fn the_clients_own_port_first<A: Numbered>() {
    let mut env = world::<A>();
    let backend = target(244, 7, 8080);
    let first = open(&mut env, (1, 40_000), 1, backend, Source::Gateway).unwrap().unwrap();
    assert_eq!((first.addr, first.port.get()), (env.gateway, 40_000));
    let second = open(&mut env, (2, 40_000), 1, backend, Source::Gateway).unwrap().unwrap();
    assert_ne!(second.port, first.port);
    let elsewhere = open(&mut env, (2, 40_000), 1, target(244, 8, 8080), Source::Gateway).unwrap().unwrap();
    assert_eq!(elsewhere.port.get(), 40_000, "another backend can tell them apart");
    let again = open(&mut env, (1, 40_000), 1, backend, Source::Gateway).unwrap().unwrap();
    assert_eq!(again, first, "a repeated opening keeps its port");
    let low = open(&mut env, (3, 80), 1, backend, Source::Gateway).unwrap().unwrap();
    assert!(low.port.get() >= 1024, "outside of the range is never used");
}

#[test]
fn the_clients_own_port_is_kept_where_it_is_free_in_both_families() {
    the_clients_own_port_first::<V4>();
    the_clients_own_port_first::<V6>();
}

#[test]
fn a_local_backend_sees_the_client_itself() {
    let mut env = world::<V4>();
    let backend = target(244, 7, 8080);
    assert_eq!(open(&mut env, (1, 80), 1, backend, Source::Own), Ok(None));
    let other = open(&mut env, (1, 80), 2, backend, Source::Own).unwrap().unwrap();
    assert_eq!(other.addr, V4::numbered(200, 1));
    assert_ne!(other.port.get(), 80);
}

#[test]
fn ports_run_out_by_name_and_come_back_when_flows_close() {
    let mut env = world::<V4>();
    env.nat_ports = (5000, 5000);
    let backend = target(244, 7, 8080);
    assert!(open(&mut env, (1, 1), 1, backend, Source::Gateway).is_ok());
    assert_eq!(open(&mut env, (2, 1), 1, backend, Source::Gateway), Err(DropReason::SnatExhausted));
    assert_eq!(open(&mut env, (2, 5000), 1, backend, Source::Gateway), Err(DropReason::SnatExhausted));
    for value in env.flows.values_mut() {
        (value.original, value.reply) = (TcpSeen::FIN, TcpSeen::FIN);
    }
    assert!(open(&mut env, (2, 1), 1, backend, Source::Gateway).is_ok());
}

#[test]
fn a_node_without_gateway_address_translates_no_source() {
    let mut env = world::<V4>();
    env.gateway = V4::default();
    let outcome = open(&mut env, (1, 1), 1, target(244, 7, 8080), Source::Gateway);
    assert_eq!(outcome, Err(DropReason::SnatExhausted));
}

#[test]
fn sctp_keeps_its_ports_or_fails() {
    let mut env = world::<V4>();
    let backend = target(244, 7, 80);
    let mut open = |client: u8| {
        let packet = udp((V4::numbered(200, client), 36_412), (V4::numbered(96, 1), 80));
        let frame = Frame { protocol: SCTP, ..parsed(&packet).unwrap() };
        run(&mut env, frame, backend, Source::Gateway)
    };
    assert_eq!(open(1), Ok(Some(target(244, 1, 36_412))));
    assert_eq!(open(2), Err(DropReason::SnatExhausted));
}

/// Number and port of a client, and the frontend that it asked.
type Owner = (u8, u16, u8);

proptest! {
    /// Whatever is opened, closed and forgotten: no two live flows to a backend have the same source.
    #[test]
    fn a_pair_in_use_is_never_handed_out(
        steps in prop::collection::vec((0u8..6, 0u16..4, 0u8..2, 0u8..2, any::<bool>(), 0u8..10), 1..80),
        range in 1u16..12,
    ) {
        let mut env = world::<V4>();
        env.nat_ports = (5000, 5000 + range);
        let mut live: HashMap<(Target<V4>, Target<V4>), Owner> = HashMap::new();
        for (client, port, frontend, backend, own, close) in steps {
            let port = 5000 + port;
            let to = target(244, 100 + backend, 8080);
            let source = if own { Source::Own } else { Source::Gateway };
            let Ok(chosen) = open(&mut env, (client, port), frontend, to, source) else { continue };
            let seen = chosen.unwrap_or(Target { addr: V4::numbered(200, client), port: Be16::new(port) });
            let owner = (client, port, frontend);
            let key = (to, seen);
            if let Some(other) = live.get(&key) {
                prop_assert_eq!(*other, owner, "taken from a live flow");
            }
            // The entries lead back to exactly this client and frontend.
            let (reply, _) = CtKey::canonical(seen.addr, seen.port, to.addr, to.port, 6);
            let value = env.flows[&reply];
            prop_assert_eq!((value.nat_addr, value.nat_port.get()), (V4::numbered(96, frontend), 80));
            if value.flags.any(CtFlags::SNAT) {
                prop_assert_eq!((value.peer_addr, value.peer_port.get()), (V4::numbered(200, client), port));
            }
            live.insert(key, owner);
            if close == 0 {
                env.flows.get_mut(&reply).unwrap().original = TcpSeen::RST;
                live.remove(&key);
            }
        }
    }
}
