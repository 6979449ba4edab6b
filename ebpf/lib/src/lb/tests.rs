//! Frontends, affinity and Maglev in memory.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use skep_abi::{MaglevChunk, MaglevKey, V4, V6};

use super::*;
use crate::fake::{FakeEnv, FakePacket, Numbered, parsed, tcp};

const NODE_PORT: PeerFlags = PeerFlags::HOST.with(PeerFlags::NODE_PORT);

fn target<A: Numbered>(area: u8, number: u8, port: u16) -> Target<A> {
    Target { addr: A::numbered(area, number), port: Be16::new(port) }
}

fn value(set: u32, flags: ServiceFlags) -> ServiceValue {
    ServiceValue { set, flags, ..ServiceValue::default() }
}

fn backends<A: Numbered>(count: u8) -> std::vec::Vec<(A, u16)> {
    (0..count).map(|number| (A::numbered(244, number + 1), 8080)).collect()
}

/// Fills a set's Maglev table with slots `0..count` in turn.
fn fill<A: Numbered>(env: &mut FakeEnv<A>, set: u32, size: u16, count: u16) {
    for position in 0..u32::from(size) {
        let (key, index) = MaglevKey::of(set, position);
        let chunk = env.maglev.entry(key).or_insert(MaglevChunk { slots: [0; 64] });
        chunk.slots[index as usize] = (position % u32::from(count)) as u16;
    }
}

fn node_ports_answer_on_chosen_addresses<A: Numbered>() {
    let mut env = FakeEnv::<A>::new();
    let flags = ServiceFlags::EXTERNAL.with(ServiceFlags::NODE_PORT);
    env.add_row((A::default(), 30_080, 6, Scope::INSIDE), value(1, flags), &backends(2));
    env.add_peer(A::numbered(89, 1), NODE_PORT, V6::default());
    env.add_peer(A::numbered(89, 2), PeerFlags::REMOTE_NODE.with(PeerFlags::NODE_PORT), V6::default());
    env.add_peer(A::numbered(89, 3), PeerFlags::HOST, V6::default());
    let mut ask =
        |to: Target<A>, required| lookup(&mut env, &to, 6, Scope::INSIDE, required).map(|row| row.set);
    assert_eq!(ask(target(89, 1, 30_080), PeerFlags::HOST), Some(1));
    assert_eq!(ask(target(89, 2, 30_080), PeerFlags(0)), Some(1), "any node's address, from inside");
    assert_eq!(ask(target(89, 2, 30_080), PeerFlags::HOST), None, "another node's packets are its own");
    assert_eq!(ask(target(89, 3, 30_080), PeerFlags(0)), None, "an address that was not chosen");
    assert_eq!(ask(target(89, 9, 30_080), PeerFlags(0)), None, "nobody's address");
    assert_eq!(ask(target(89, 1, 29_999), PeerFlags(0)), None);
    let nowhere = Target { addr: A::default(), port: Be16::new(30_080) };
    assert_eq!(ask(nowhere, PeerFlags(0)), None, "the key's own address is no address");
}

#[test]
fn node_ports_answer_on_chosen_addresses_in_both_families() {
    node_ports_answer_on_chosen_addresses::<V4>();
    node_ports_answer_on_chosen_addresses::<V6>();
}

fn room<A: Numbered>(service: &ServiceValue, packet: &FakePacket) -> Room<A> {
    let mut room = Room::new();
    room.frame = parsed(packet).unwrap();
    room.service = *service;
    room
}

/// The slot that a packet of an outside client is planned for.
fn slot<A: Numbered>(env: &mut FakeEnv<A>, service: &ServiceValue, packet: &FakePacket) -> u32 {
    let mut room = room(service, packet);
    assert!(choose_outside(env, &mut room));
    let to = room.plan.to;
    (0..).find(|slot| at(env, service, *slot).unwrap().target() == to).unwrap()
}

fn ask_outside(env: &mut FakeEnv<V4>, client: V4) -> Result<Option<u32>, DropReason> {
    let mut room = room(&ServiceValue::default(), &tcp((client, 1), (V4::numbered(96, 1), 80), 2));
    find_outside(env, &mut room).map(|found| found.then_some(room.service.set))
}

#[test]
fn outside_clients_need_an_external_row_and_their_own_where_it_is_split() {
    let (client, frontend) = (V4::numbered(200, 1), V4::numbered(96, 1));
    let mut env = FakeEnv::new();
    env.add_row((frontend, 80, 6, Scope::INSIDE), value(1, ServiceFlags::default()), &backends(1));
    assert_eq!(ask_outside(&mut env, client), Ok(None));
    let split = ServiceFlags::EXTERNAL.with(ServiceFlags::SPLIT);
    env.add_row((frontend, 80, 6, Scope::INSIDE), value(1, split), &backends(1));
    assert_eq!(ask_outside(&mut env, client), Err(DropReason::NoService));
    env.add_row((frontend, 80, 6, Scope::OUTSIDE), value(2, ServiceFlags::EXTERNAL), &backends(1));
    assert_eq!(ask_outside(&mut env, client), Ok(Some(2)));
}

#[test]
fn source_ranges_hold_for_the_row_that_carries_them() {
    let frontend = V4::numbered(96, 1);
    let mut env = FakeEnv::new();
    let flags = ServiceFlags::EXTERNAL.with(ServiceFlags::SOURCE_RANGES);
    env.add_row((frontend, 80, 6, Scope::INSIDE), value(1, flags), &backends(1));
    env.sources.insert((1, V4::numbered(200, 1)));
    env.sources.insert((2, V4::numbered(200, 2)));
    assert_eq!(ask_outside(&mut env, V4::numbered(200, 1)), Ok(Some(1)));
    assert_eq!(ask_outside(&mut env, V4::numbered(200, 2)), Err(DropReason::SourceRange));
}

fn a_client_stays<A: Numbered>() {
    let mut env = FakeEnv::<A>::new();
    let service = ServiceValue { set: 1, count: 5, affinity: 100, ..ServiceValue::default() };
    env.set_backends(1, &backends(5));
    let client = AffinityKey::address(1, A::numbered(200, 1));
    let first = choose(&mut env, &service, &client).unwrap();
    for _ in 0..20 {
        env.now += affinity::ticks(90);
        assert_eq!(choose(&mut env, &service, &client), Some(first), "every connection renews it");
    }
    // The backend moves to another slot.
    let mut moved = backends(5);
    moved.rotate_left(1);
    env.set_backends(1, &moved);
    assert_eq!(choose(&mut env, &service, &client).map(|pick| pick.backend), Some(first.backend));
    // It goes.
    let others: std::vec::Vec<_> =
        backends(6).into_iter().filter(|row| row.0 != first.backend.addr).collect();
    env.set_backends(1, &others);
    let next = choose(&mut env, &service, &client).unwrap();
    assert_ne!(next.backend, first.backend);
    assert_eq!(choose(&mut env, &service, &client), Some(next));
    // Time passes.
    env.now += affinity::ticks(100) + 1;
    let mut seen = HashSet::new();
    for _ in 0..50 {
        seen.insert(choose(&mut env, &service, &client).unwrap().slot);
        env.now += affinity::ticks(100) + 1;
    }
    assert!(seen.len() > 1);
}

#[test]
fn a_client_with_affinity_stays_until_its_time_or_its_backend_is_over() {
    a_client_stays::<V4>();
    a_client_stays::<V6>();
}

#[test]
fn affinity_of_outside_clients_agrees_between_nodes() {
    let service = ServiceValue { set: 1, count: 7, affinity: 100, maglev: 251, ..ServiceValue::default() };
    let mut chosen = HashSet::new();
    for node in 0..5 {
        let mut env = FakeEnv::<V4>::new();
        env.next_random = node * 77;
        env.set_backends(1, &backends(7));
        fill(&mut env, 1, 251, 7);
        let packet = tcp((V4::numbered(200, 1), 1000 + node as u16), (V4::numbered(96, 1), 80), 2);
        chosen.insert(slot(&mut env, &service, &packet));
    }
    assert_eq!(chosen.len(), 1);
}

#[test]
fn a_maglev_slot_that_is_gone_is_replaced_by_chance() {
    let mut env = FakeEnv::<V4>::new();
    let service = ServiceValue { set: 1, count: 2, maglev: 251, ..ServiceValue::default() };
    env.set_backends(1, &backends(2));
    let packet = tcp((V4::numbered(200, 1), 1), (V4::numbered(96, 1), 80), 2);
    assert!(slot(&mut env, &service, &packet) < 2, "no table yet");
    fill(&mut env, 1, 251, 9);
    for port in 0..64 {
        let packet = tcp((V4::numbered(200, 1), port), (V4::numbered(96, 1), 80), 2);
        assert!(slot(&mut env, &service, &packet) < 2);
    }
}

#[test]
fn hashes_spread_clients_evenly() {
    let mut counts = [0u32; 8];
    for number in 0..8000u32 {
        let client = V4::from_raw((0x0a00_0000 + number).to_be());
        counts[(maglev::hash_client(client) >> 29) as usize] += 1;
    }
    assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
}

#[test]
fn slots_are_chosen_evenly() {
    let mut counts = [0u32; 3];
    for step in 0..3000u32 {
        counts[scale(step.wrapping_mul(0x9e37_79b9), 3) as usize] += 1;
    }
    assert!(counts.iter().all(|count| (950..1050).contains(count)), "{counts:?}");
}

/// What the model of the load balancer knows of a frontend.
type Model = HashMap<(u8, u16, u8), std::vec::Vec<(V4, u16)>>;

proptest! {
    #[test]
    fn a_scaled_number_is_a_slot(random in any::<u32>(), count in 1u16..) {
        prop_assert!(scale(random, count) < u32::from(count));
    }

    /// The load balancer and a naive model (a table from frontend to list) agree on what is a frontend, and every backend
    /// of the list is chosen sooner or later, and no other.
    #[test]
    fn the_load_balancer_equals_a_naive_model(
        rows in prop::collection::vec((1u8..5, 80u16..83, prop::sample::select(std::vec![6u8, 17]), 0u8..6), 0..12),
        asked in prop::collection::vec((1u8..5, 80u16..83, prop::sample::select(std::vec![6u8, 17])), 1..12),
    ) {
        let mut env = FakeEnv::<V4>::new();
        let mut model = Model::new();
        for (set, (number, port, protocol, count)) in (1u32..).zip(rows) {
            let list: std::vec::Vec<_> = (0..count).map(|slot| (V4::numbered(244, slot + set as u8 * 8), 8080)).collect();
            let key = (V4::numbered(96, number), port, protocol, Scope::INSIDE);
            env.add_row(key, value(set, ServiceFlags::default()), &list);
            model.insert((number, port, protocol), list);
        }
        for (number, port, protocol) in asked {
            let found = lookup(&mut env, &target(96, number, port), protocol, Scope::INSIDE, PeerFlags(0));
            let Some(expected) = model.get(&(number, port, protocol)) else {
                prop_assert_eq!(found, None);
                continue;
            };
            let service = found.unwrap();
            let mut seen = HashSet::new();
            for _ in 0..200 {
                let pick = pick(&mut env, &service);
                seen.extend(pick.map(|pick| (pick.backend.addr, pick.backend.port.get())));
            }
            prop_assert_eq!(seen, expected.iter().copied().collect::<HashSet<_>>());
        }
    }

    /// The slot of a flow is what the table says, and the same on every node and at every time.
    #[test]
    fn a_flow_goes_where_the_table_says(port in any::<u16>(), client in 1u8..200) {
        let service = ServiceValue { set: 3, count: 13, maglev: 1021, ..ServiceValue::default() };
        let mut env = FakeEnv::<V6>::new();
        env.set_backends(3, &backends(13));
        fill(&mut env, 3, 1021, 13);
        let packet = tcp((V6::numbered(200, client), port), (V6::numbered(96, 1), 80), 2);
        let expected = scale(maglev::hash_flow(&parsed::<V6>(&packet).unwrap()), 1021) % 13;
        for _ in 0..3 {
            prop_assert_eq!(slot(&mut env, &service, &packet), expected);
        }
    }
}
