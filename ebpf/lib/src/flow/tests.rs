//! Flows end to end in memory: what goes out translated comes back translated, in both families.

use proptest::prelude::*;
use skep_abi::{CtKey, CtState, DropReason, V4, V6, conntrack::TcpSeen};

use super::{Handled, Sender, handle};
use crate::{
    fake::{FakeEnv, FakePacket, Numbered, build, echo, is_sound, parsed, quoted, tcp, udp},
    family::Family,
    frame::Frame,
    room::Room,
};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

struct World<A> {
    env: FakeEnv<A>,
    client: A,
    frontend: A,
    backends: [A; 2],
}

impl<A: Numbered> World<A> {
    fn new() -> Self {
        let backends = [A::numbered(244, 7), A::numbered(244, 8)];
        let (client, frontend) = (A::numbered(244, 5), A::numbered(96, 1));
        let mut env = FakeEnv::new();
        env.gateway = A::numbered(244, 1);
        for protocol in [6, 17] {
            env.add_service(frontend, 80, protocol, &[(backends[0], 8080), (backends[1], 8080)]);
        }
        Self { env, client, frontend, backends }
    }

    fn pass(&mut self, packet: &mut FakePacket) -> Result<(Handled, Frame<A>), DropReason> {
        let mut room = Room::new();
        A::parse(packet, &mut room.frame)?;
        handle(&mut self.env, packet, &mut room, Sender::Host)?;
        assert!(is_sound::<A>(packet), "a checksum is wrong");
        let frame = room.frame;
        assert_eq!(parsed::<A>(packet).map(|read| (read.src, read.dst)), Ok((frame.src, frame.dst)));
        Ok((room.plan.handled, frame))
    }

    fn state(&mut self, from: (A, u16), to: (A, u16)) -> CtState {
        let frame = parsed::<A>(&tcp(from, to, ACK)).unwrap();
        let value = self.env.flows
            [&CtKey::canonical(frame.src, frame.src_port, frame.dst, frame.dst_port, frame.protocol).0];
        CtState::of(value.original, value.reply)
    }
}

fn a_connection_to_a_frontend_reaches_one_backend_and_its_replies_come_from_the_frontend<A: Numbered>() {
    let mut world = World::<A>::new();
    let (client, frontend) = ((world.client, 40_000), (world.frontend, 80));
    let mut chosen = None;
    for flags in [SYN, ACK, ACK] {
        let (handled, frame) = world.pass(&mut tcp(client, frontend, flags)).unwrap();
        assert_eq!(handled, Handled::Translated);
        assert!(world.backends.contains(&frame.dst));
        assert_eq!(*chosen.get_or_insert(frame.dst), frame.dst, "packets of a connection stay together");
        assert_eq!(frame.dst_port.get(), 8080);
    }
    let backend = (chosen.unwrap(), 8080);
    let (handled, frame) = world.pass(&mut tcp(backend, client, SYN | ACK)).unwrap();
    assert_eq!((handled, frame.src, frame.src_port.get()), (Handled::Reply, frontend.0, 80));
}

#[test]
fn a_translated_connection_works_in_both_directions_over_ipv4() {
    a_connection_to_a_frontend_reaches_one_backend_and_its_replies_come_from_the_frontend::<V4>();
}

#[test]
fn a_translated_connection_works_in_both_directions_over_ipv6() {
    a_connection_to_a_frontend_reaches_one_backend_and_its_replies_come_from_the_frontend::<V6>();
}

#[test]
fn the_first_packet_fixes_the_direction() {
    let mut world = World::<V4>::new();
    let (asking, asked) = ((world.client, 40_000), (world.backends[0], 8080));
    world.pass(&mut tcp(asking, asked, SYN)).unwrap();
    assert_eq!(world.state(asking, asked), CtState::Opening);
    world.pass(&mut tcp(asked, asking, SYN | ACK)).unwrap();
    assert_eq!(world.state(asking, asked), CtState::Established);
    assert_eq!(world.env.flows.len(), 1);
}

#[test]
fn a_new_connection_on_old_ports_starts_over_after_both_sides_finished() {
    let mut world = World::<V4>::new();
    let (asking, asked) = ((world.client, 40_000), (world.backends[0], 8080));
    for (from, to, flags) in [
        (asking, asked, SYN),
        (asked, asking, SYN | ACK),
        (asking, asked, FIN | ACK),
        (asked, asking, FIN | ACK),
    ] {
        world.pass(&mut tcp(from, to, flags)).unwrap();
    }
    assert_eq!(world.state(asking, asked), CtState::Closed);
    world.pass(&mut tcp(asking, asked, SYN)).unwrap();
    assert_eq!(world.state(asking, asked), CtState::Opening);
}

#[test]
fn a_repeated_syn_keeps_its_backend_and_a_fresh_one_after_traffic_may_choose_again() {
    let mut world = World::<V4>::new();
    let (client, frontend) = ((world.client, 40_000), (world.frontend, 80));
    let first = world.pass(&mut tcp(client, frontend, SYN)).unwrap().1.dst;
    for _ in 0..8 {
        assert_eq!(world.pass(&mut tcp(client, frontend, SYN)).unwrap().1.dst, first);
    }
    world.pass(&mut tcp(client, frontend, RST)).unwrap();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..32 {
        seen.insert(world.pass(&mut tcp(client, frontend, SYN)).unwrap().1.dst);
        world.pass(&mut tcp(client, frontend, RST)).unwrap();
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_reset_closes_the_flow() {
    let mut world = World::<V4>::new();
    let (asking, asked) = ((world.client, 40_000), (world.backends[0], 8080));
    world.pass(&mut tcp(asking, asked, SYN)).unwrap();
    world.pass(&mut tcp(asked, asking, RST | ACK)).unwrap();
    assert_eq!(world.state(asking, asked), CtState::Closed);
}

#[test]
fn services_without_port_or_backend_are_refused_by_name() {
    let mut world = World::<V4>::new();
    let client = (world.client, 40_000);
    assert_eq!(world.pass(&mut tcp(client, (world.frontend, 81), SYN)), Err(DropReason::NoService));
    let empty = V4::numbered(96, 9);
    world.env.add_service(empty, 80, 6, &[]);
    assert_eq!(world.pass(&mut tcp(client, (empty, 80), SYN)), Err(DropReason::NoBackend));
}

fn a_pod_reaches_itself<A: Numbered>() {
    let mut world = World::<A>::new();
    let (own, alone) = (world.backends[0], A::numbered(96, 9));
    world.env.add_service(alone, 80, 6, &[(own, 8080)]);
    let (client, frontend) = ((own, 40_000), (alone, 80));
    let (_, asked) = world.pass(&mut tcp(client, frontend, SYN)).unwrap();
    assert_eq!((asked.src, asked.dst), (world.env.gateway, own), "it sees the gateway ask");
    let asker = (asked.src, asked.src_port.get());
    let (handled, answer) = world.pass(&mut tcp((own, 8080), asker, SYN | ACK)).unwrap();
    assert_eq!(handled, Handled::Reply);
    assert_eq!((answer.src, answer.src_port.get()), frontend);
    assert_eq!((answer.dst, answer.dst_port.get()), client);
}

#[test]
fn a_pod_reaches_itself_through_its_service_in_both_families() {
    a_pod_reaches_itself::<V4>();
    a_pod_reaches_itself::<V6>();
}

fn a_translation_beside_a_live_direct_connection<A: Numbered>() {
    let mut world = World::<A>::new();
    let single = A::numbered(96, 9);
    let backend = (world.backends[0], 8080);
    world.env.add_service(single, 80, 6, &[backend]);
    let client = (world.client, 40_000);
    world.pass(&mut tcp(client, backend, SYN)).unwrap();
    world.pass(&mut tcp(backend, client, SYN | ACK)).unwrap();
    let (_, asked) = world.pass(&mut tcp(client, (single, 80), SYN)).unwrap();
    assert_eq!(asked.src, client.0, "the client keeps its address, and so its identity");
    assert_ne!(asked.src_port.get(), client.1);
    let asker = (asked.src, asked.src_port.get());
    let (_, answer) = world.pass(&mut tcp(backend, asker, SYN | ACK)).unwrap();
    assert_eq!((answer.src, answer.src_port.get()), (single, 80));
    assert_eq!((answer.dst, answer.dst_port.get()), client);
    let (_, direct) = world.pass(&mut tcp(backend, client, ACK)).unwrap();
    assert_eq!((direct.src, direct.src_port.get()), backend, "the direct connection stays what it is");
}

#[test]
fn a_translation_never_takes_over_a_live_direct_connection() {
    a_translation_beside_a_live_direct_connection::<V4>();
    a_translation_beside_a_live_direct_connection::<V6>();
}

#[test]
fn a_translation_without_a_free_port_is_a_conflict() {
    let mut world = World::<V4>::new();
    world.env.nat_ports = (40_000, 40_000);
    let single = V4::numbered(96, 9);
    let backend = (world.backends[0], 8080);
    world.env.add_service(single, 80, 6, &[backend]);
    let client = (world.client, 40_000);
    world.pass(&mut tcp(client, backend, SYN)).unwrap();
    assert_eq!(world.pass(&mut tcp(client, (single, 80), SYN)), Err(DropReason::FlowConflict));
    world.pass(&mut tcp(client, backend, RST)).unwrap();
    assert!(world.pass(&mut tcp(client, (single, 80), SYN)).is_ok());
}

#[test]
fn a_full_conntrack_is_a_reason_of_its_own() {
    let mut world = World::<V4>::new();
    world.env.room_for_flows = 0;
    let packet = &mut tcp((world.client, 1), (world.backends[0], 2), SYN);
    assert_eq!(world.pass(packet), Err(DropReason::ConntrackFull));
}

fn echo_replies_belong_to_their_request<A: Numbered>() {
    let mut world = World::<A>::new();
    let (asking, asked) = (world.client, world.backends[0]);
    world.pass(&mut echo(asking, asked, A::ECHO_REQUEST, 77)).unwrap();
    world.pass(&mut echo(asked, asking, A::ECHO_REPLY, 77)).unwrap();
    assert_eq!(world.env.flows.len(), 1);
    // The other side asking with the same identifier is another flow.
    world.pass(&mut echo(asked, asking, A::ECHO_REQUEST, 77)).unwrap();
    assert_eq!(world.env.flows.len(), 2);
}

#[test]
fn echo_is_tracked_by_the_asking_side_in_both_families() {
    echo_replies_belong_to_their_request::<V4>();
    echo_replies_belong_to_their_request::<V6>();
}

/// "Port unreachable" about a packet.
fn unreachable<A: Numbered>(from: A, to: A, quoted: &FakePacket) -> FakePacket {
    let kind = if A::ICMP == 1 { 3 } else { 1 };
    let mut l4 = std::vec![kind, 3, 0, 0, 0, 0, 0, 0];
    l4.extend(&quoted.0[14..14 + A::HEADER_LEN as usize + 8]);
    build(from, to, A::ICMP, l4, 2)
}

fn errors_follow_the_flow_they_quote<A: Numbered>() {
    let mut world = World::<A>::new();
    let (client, frontend) = ((world.client, 40_000), (world.frontend, 80));
    let mut sent = udp(client, frontend);
    let backend = (world.pass(&mut sent).unwrap().1.dst, 8080);
    // The backend's host refuses what it received: the client must read of the frontend, from the frontend.
    let mut refused = unreachable(backend.0, client.0, &sent);
    let (handled, frame) = world.pass(&mut refused).unwrap();
    assert_eq!((handled, frame.src), (Handled::Reply, frontend.0));
    let about = quoted::<A>(&refused);
    assert_eq!((about.dst, about.dst_port.get()), frontend);
    // The client refuses an answer: the backend must read of itself.
    let mut answer = udp(backend, client);
    world.pass(&mut answer).unwrap();
    let mut refused = unreachable(client.0, frontend.0, &answer);
    let (_, frame) = world.pass(&mut refused).unwrap();
    assert_eq!(frame.dst, backend.0);
    let about = quoted::<A>(&refused);
    assert_eq!((about.src, about.src_port.get()), backend);
}

#[test]
fn icmp_errors_are_translated_with_what_they_quote_in_both_families() {
    errors_follow_the_flow_they_quote::<V4>();
    errors_follow_the_flow_they_quote::<V6>();
}

#[test]
fn an_icmp_error_about_an_unknown_flow_is_refused() {
    let mut world = World::<V4>::new();
    let quoted = udp((world.client, 1), (world.backends[0], 2));
    let mut error = unreachable(world.backends[0], world.client, &quoted);
    assert_eq!(world.pass(&mut error), Err(DropReason::UntrackedReply));
}

#[test]
fn later_fragments_follow_the_first_and_strangers_are_refused() {
    let mut world = World::<V4>::new();
    let (client, frontend) = ((world.client, 40_000), (world.frontend, 80));
    let fragment = |field: u16| {
        let mut packet = udp(client, frontend);
        packet.0[20..22].copy_from_slice(&field.to_be_bytes());
        packet.0[24..26].copy_from_slice(&[0, 0]);
        let value = crate::csum::checksum(&packet.0[14..34]).to_be_bytes();
        packet.0[24..26].copy_from_slice(&value);
        packet
    };
    let handle_one = |world: &mut World<V4>, mut packet: FakePacket| {
        let mut room = Room::new();
        V4::parse(&packet, &mut room.frame).unwrap();
        handle(&mut world.env, &mut packet, &mut room, Sender::Host).map(|()| (room.frame, packet))
    };
    assert_eq!(handle_one(&mut world, fragment(1)).map(drop), Err(DropReason::FragmentUnknown));
    let (first, _) = handle_one(&mut world, fragment(0x2000)).unwrap();
    let untouched = fragment(2);
    let (later, packet) = handle_one(&mut world, fragment(2)).unwrap();
    assert_eq!(later.dst, first.dst);
    assert_eq!(packet.0[34..], untouched.0[34..], "a later fragment has no ports to rewrite");
    assert_eq!(crate::csum::fold(crate::csum::sum(&packet.0[14..34])), 0xffff);
}

proptest! {
    /// Whatever is sent between a client, frontends and backends: replies to translated packets come from the frontend
    /// that the client asked, and a flow never changes its backend while it lives.
    #[test]
    fn translation_is_its_own_inverse(
        steps in prop::collection::vec((1u16..6, any::<bool>(), prop::bool::weighted(0.1)), 1..60),
    ) {
        let mut world = World::<V4>::new();
        let mut model = std::collections::HashMap::new();
        for (port, reply, reset) in steps {
            let client = (world.client, 40_000 + port);
            let frontend = (world.frontend, 80);
            let flags = if reset { RST } else { ACK };
            if !reply || !model.contains_key(&port) {
                let flags = if model.contains_key(&port) { flags } else { SYN };
                let (_, frame) = world.pass(&mut tcp(client, frontend, flags)).unwrap();
                let backend = *model.entry(port).or_insert((frame.dst, 8080));
                prop_assert_eq!((frame.dst, frame.dst_port.get()), backend);
                if flags == RST {
                    model.remove(&port);
                }
            } else {
                let (_, frame) = world.pass(&mut tcp(model[&port], client, ACK)).unwrap();
                prop_assert_eq!((frame.src, frame.src_port.get()), frontend);
                prop_assert_eq!((frame.dst, frame.dst_port.get()), client);
            }
        }
    }

    /// No bytes make the parser read beyond the end or panic, in either family.
    #[test]
    fn any_bytes_are_handled(bytes in prop::collection::vec(any::<u8>(), 0..120), version in prop::sample::select(std::vec![0x45u8, 0x46, 0x4f, 0x60])) {
        let mut bytes = bytes;
        if let Some(first) = bytes.get_mut(14) {
            *first = version;
        }
        let mut packet = FakePacket(bytes);
        let mut v4 = World::<V4>::new();
        let mut room = Room::new();
        if V4::parse(&packet, &mut room.frame).is_ok() {
            let _any = handle(&mut v4.env, &mut packet, &mut room, Sender::Host);
        }
        let mut v6 = World::<V6>::new();
        let mut room = Room::new();
        if V6::parse(&packet, &mut room.frame).is_ok() {
            let _any = handle(&mut v6.env, &mut packet, &mut room, Sender::Host);
        }
    }
}

#[test]
fn tcp_flags_are_read_as_seen() {
    let packet = tcp((V4::numbered(1, 1), 1), (V4::numbered(1, 2), 2), SYN | ACK);
    let frame = parsed::<V4>(&packet).unwrap();
    assert!(frame.tcp.any(TcpSeen::SYN) && !frame.tcp.any(TcpSeen::MORE) && !frame.opens);
}
