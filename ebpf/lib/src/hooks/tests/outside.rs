//! Clients outside the cluster in memory: two nodes, a client, and whatever may come in between, in both families.

use std::{collections::HashMap, vec::Vec};

use proptest::prelude::*;
use skep_abi::{
    CtFlags, DropReason, NodeMode, PeerFlags, Scope, ServiceFlags, ServiceValue, V4, V6, VNI_CLUSTER,
    VNI_WORLD,
};

use crate::{
    fake::{self, FakeEnv, FakePacket, Numbered, Sent as Action, build, is_sound, parsed, pod_mac, tcp, udp},
    hooks::tests::run,
};

const FIN: u8 = 1;
const SYN: u8 = 2;
const ACK: u8 = 16;
const PORT: u16 = 30_080;

/// Underlay addresses as tunnels know them.
fn outer(node: u8) -> V6 {
    V6::from_mapped(V4::new([10, 89, 0, node]))
}

fn node_ip<A: Numbered>(node: u8) -> A {
    A::numbered(89, node)
}

fn gateway<A: Numbered>(node: u8) -> A {
    A::numbered(244, node)
}

/// A pod of a node: node 1 has 10..=99, node 2 has 110..=199.
fn pod<A: Numbered>(number: u8) -> A {
    A::numbered(244, number)
}

fn client<A: Numbered>() -> A {
    A::numbered(200, 1)
}

/// The state of one node, of two that know each other. `pods` are its own.
fn node<A: Numbered>(own: u8, pods: &[u8]) -> FakeEnv<A> {
    let mut env = FakeEnv::new();
    env.gateway = gateway(own);
    for number in [1, 2] {
        let kind = if number == own { PeerFlags::HOST } else { PeerFlags::REMOTE_NODE };
        env.add_peer(node_ip(number), kind.with(PeerFlags::NODE_PORT), outer(number));
        env.add_peer(gateway(number), kind, outer(number));
    }
    for number in [10, 11, 110, 111] {
        let local = pods.contains(&number);
        let kind = if local { PeerFlags::LOCAL_PODS } else { PeerFlags::REMOTE_PODS };
        env.add_peer(pod(number), kind, outer(if number < 100 { 1 } else { 2 }));
        if local {
            env.add_pod(pod(number), number.into());
        }
    }
    env
}

fn first<A: Numbered>() -> FakeEnv<A> {
    node(1, &[10, 11])
}

fn second<A: Numbered>() -> FakeEnv<A> {
    node(2, &[110, 111])
}

fn serve<A: Numbered>(env: &mut FakeEnv<A>, flags: ServiceFlags, backends: &[(A, u16)]) {
    let flags = flags.with(ServiceFlags::EXTERNAL).with(ServiceFlags::NODE_PORT);
    for (set, protocol) in [(1, 6), (2, 17)] {
        let value = ServiceValue { set, flags, ..ServiceValue::default() };
        env.add_row((A::default(), PORT, protocol, Scope::INSIDE), value, backends);
    }
}

fn ends<A: Numbered>(packet: &FakePacket) -> ((A, u16), (A, u16)) {
    assert!(is_sound::<A>(packet), "a checksum is wrong");
    let frame = parsed::<A>(packet).unwrap();
    ((frame.src, frame.src_port.get()), (frame.dst, frame.dst_port.get()))
}

fn from_mac(mac: u32, mut packet: FakePacket) -> FakePacket {
    packet.0[6..12].copy_from_slice(&pod_mac(mac));
    packet
}

/// "Fragmentation needed" or "packet too big" about a packet.
fn too_big<A: Numbered>(from: A, to: A, about: &FakePacket) -> FakePacket {
    let (kind, code) = if A::ICMP == 1 { (3, 4) } else { (2, 0) };
    let mut l4 = std::vec![kind, code, 0, 0, 0, 0, 5, 120];
    l4.extend(&about.0[14..14 + A::HEADER_LEN as usize + 8]);
    build(from, to, A::ICMP, l4, 2)
}

fn quoted<A: Numbered>(packet: &FakePacket) -> ((A, u16), (A, u16)) {
    let quoted = fake::quoted::<A>(packet);
    ((quoted.src, quoted.src_port.get()), (quoted.dst, quoted.dst_port.get()))
}

fn a_local_backend_sees_the_client<A: Numbered>() {
    let mut env = first::<A>();
    serve(&mut env, ServiceFlags::default(), &[(pod(10), 8080)]);
    let (asker, frontend) = ((client::<A>(), 5000), (node_ip(1), PORT));
    let mut asked = tcp(asker, frontend, SYN);
    let action = run!(from_uplink::<A>(&mut env, &mut asked));
    assert!(matches!(action, Ok(Action::Deliver(endpoint)) if endpoint.ifindex == 10), "{action:?}");
    assert_eq!(ends::<A>(&asked), (asker, (pod(10), 8080)));
    let mut answer = from_mac(10, tcp((pod(10), 8080), asker, SYN | ACK));
    assert_eq!(run!(from_pod::<A>(&mut env, &mut answer, 10)), Ok(Action::World));
    assert_eq!(ends::<A>(&answer), (frontend, asker));
}

#[test]
fn a_local_backend_sees_the_client_in_both_families() {
    a_local_backend_sees_the_client::<V4>();
    a_local_backend_sees_the_client::<V6>();
}

fn a_remote_backend_answers_through_this_node<A: Numbered>() {
    let (mut near, mut far) = (first::<A>(), second::<A>());
    serve(&mut near, ServiceFlags::default(), &[(pod(110), 8080)]);
    let (asker, frontend) = ((client::<A>(), 5000), (node_ip(1), PORT));
    let mut asked = tcp(asker, frontend, SYN);
    assert_eq!(run!(from_uplink::<A>(&mut near, &mut asked)), Ok(Action::Tunnel(outer(2))));
    let stand_in = (gateway::<A>(1), 5000);
    assert_eq!(ends::<A>(&asked), (stand_in, (pod(110), 8080)));
    let action = run!(from_overlay::<A>(&mut far, &mut asked, &outer(1), VNI_CLUSTER));
    assert!(matches!(action, Ok(Action::Deliver(endpoint)) if endpoint.ifindex == 110));
    let mut answer = from_mac(110, tcp((pod(110), 8080), stand_in, SYN | ACK));
    assert_eq!(run!(from_pod::<A>(&mut far, &mut answer, 110)), Ok(Action::Tunnel(outer(1))));
    let action = run!(from_overlay::<A>(&mut near, &mut answer, &outer(2), VNI_CLUSTER));
    assert_eq!(action, Ok(Action::World));
    assert_eq!(ends::<A>(&answer), (frontend, asker));
}

#[test]
fn a_remote_backend_answers_through_this_node_in_both_families() {
    a_remote_backend_answers_through_this_node::<V4>();
    a_remote_backend_answers_through_this_node::<V6>();
}

fn a_process_of_this_node_answers_from_the_frontend<A: Numbered>() {
    let mut env = first::<A>();
    serve(&mut env, ServiceFlags::default(), &[(node_ip(1), 9000)]);
    let (asker, frontend) = ((client::<A>(), 5000), (node_ip(1), PORT));
    let mut asked = udp(asker, frontend);
    assert_eq!(run!(from_uplink::<A>(&mut env, &mut asked)), Ok(Action::Pass));
    assert_eq!(ends::<A>(&asked), (asker, (node_ip(1), 9000)));
    let mut answer = udp((node_ip(1), 9000), asker);
    assert_eq!(run!(to_uplink::<A>(&mut env, &mut answer)), Ok(Action::Pass));
    assert_eq!(ends::<A>(&answer), (frontend, asker));
    let mut other = udp((node_ip::<A>(1), 9000), (client(), 5001));
    let before = other.clone();
    assert_eq!(run!(to_uplink::<A>(&mut env, &mut other)), Ok(Action::Pass));
    assert_eq!(other, before, "what nobody translated stays as it is");
}

#[test]
fn a_process_of_this_node_answers_from_the_frontend_in_both_families() {
    a_process_of_this_node_answers_from_the_frontend::<V4>();
    a_process_of_this_node_answers_from_the_frontend::<V6>();
}

/// Two nodes with direct answers: the first takes the client's packets, the second has the backend.
fn direct<A: Numbered>() -> (FakeEnv<A>, FakeEnv<A>) {
    let (mut near, mut far) = (first::<A>(), second::<A>());
    near.mode = NodeMode::DSR;
    far.mode = NodeMode::DSR;
    let backends = [(pod(110), 8080), (pod(111), 8080)];
    serve(&mut near, ServiceFlags::default(), &backends);
    let flags = ServiceFlags::EXTERNAL.with(ServiceFlags::NODE_PORT);
    for (set, protocol) in [(3, 6), (4, 17)] {
        let value = ServiceValue { set, flags, ..ServiceValue::default() };
        far.add_row((A::default(), PORT, protocol, Scope::LOCAL), value, &backends);
    }
    (near, far)
}

fn a_backend_answers_directly<A: Numbered>() {
    let (mut near, mut far) = direct::<A>();
    let (asker, frontend) = ((client::<A>(), 5000), (node_ip(1), PORT));
    let mut backend = None;
    for flags in [SYN, ACK, ACK, FIN | ACK] {
        let mut asked = tcp(asker, frontend, flags);
        let before = asked.clone();
        assert_eq!(run!(from_uplink::<A>(&mut near, &mut asked)), Ok(Action::TunnelOutside(outer(2))));
        assert_eq!(asked, before, "it goes on untranslated");
        let action = run!(from_overlay::<A>(&mut far, &mut asked, &outer(1), VNI_WORLD));
        assert!(matches!(action, Ok(Action::Deliver(_))), "{action:?}");
        let (src, dst) = ends::<A>(&asked);
        assert_eq!((src, *backend.get_or_insert(dst)), (asker, dst));
    }
    let backend = backend.unwrap();
    let mac = u32::from(*backend.0.octets().last().unwrap());
    let mut answer = from_mac(mac, tcp(backend, asker, SYN | ACK));
    assert_eq!(run!(from_pod::<A>(&mut far, &mut answer, mac)), Ok(Action::World));
    assert_eq!(ends::<A>(&answer), (frontend, asker));
    // A router complains about the answer: it comes to the frontend's node, and goes on to the backend.
    let mut complaint = too_big(A::numbered(201, 1), frontend.0, &answer);
    assert_eq!(run!(from_uplink::<A>(&mut near, &mut complaint)), Ok(Action::TunnelOutside(outer(2))));
    let action = run!(from_overlay::<A>(&mut far, &mut complaint, &outer(1), VNI_WORLD));
    assert!(matches!(action, Ok(Action::Deliver(_))), "{action:?}");
    assert_eq!(quoted::<A>(&complaint), (backend, asker));
    assert_eq!(ends::<A>(&complaint).1.0, backend.0);
}

#[test]
fn a_backend_of_another_node_answers_directly_in_both_families() {
    a_backend_answers_directly::<V4>();
    a_backend_answers_directly::<V6>();
}

#[test]
fn a_forwarded_connection_counts_as_established_once_the_client_goes_on() {
    let (mut near, _) = direct::<V4>();
    let (asker, frontend) = ((client::<V4>(), 5000), (node_ip(1), PORT));
    let state = |env: &FakeEnv<V4>| {
        let value = env.flows.values().next().unwrap();
        assert!(value.flags.any(CtFlags::FORWARDED));
        skep_abi::CtState::of(value.original, value.reply)
    };
    let _any = run!(from_uplink::<V4>(&mut near, &mut tcp(asker, frontend, SYN)));
    assert_eq!(state(&near), skep_abi::CtState::Opening);
    let _any = run!(from_uplink::<V4>(&mut near, &mut tcp(asker, frontend, ACK)));
    assert_eq!(state(&near), skep_abi::CtState::Established);
}

#[test]
fn the_tunnel_takes_outside_packets_from_nodes_for_frontends_only() {
    let (_, mut far) = direct::<V4>();
    let mut arrive = |src: V4, dst: (V4, u16), from: V6, vni: u32| {
        run!(from_overlay::<V4>(&mut far, &mut tcp((src, 5000), dst, SYN), &from, vni))
    };
    let frontend = (node_ip(1), PORT);
    let stranger = outer(99);
    assert_eq!(arrive(client(), frontend, stranger, VNI_WORLD), Err(DropReason::TunnelSpoofed));
    assert_eq!(arrive(pod(10), frontend, outer(1), VNI_WORLD), Err(DropReason::NotOutside));
    assert_eq!(arrive(V4::numbered(244, 250), frontend, outer(1), VNI_WORLD), Err(DropReason::NotOutside));
    assert_eq!(arrive(node_ip(1), frontend, outer(1), VNI_WORLD), Err(DropReason::NotOutside));
    assert_eq!(arrive(V4::new([127, 0, 0, 1]), frontend, outer(1), VNI_WORLD), Err(DropReason::Martian));
    assert_eq!(arrive(client(), (pod(110), 8080), outer(1), VNI_WORLD), Err(DropReason::NotOutside));
    assert_eq!(arrive(client(), frontend, outer(1), VNI_CLUSTER), Err(DropReason::PeerUnknown));
    assert_eq!(arrive(client(), frontend, outer(1), 7), Err(DropReason::UnknownVni));
    assert!(arrive(client(), frontend, outer(1), VNI_WORLD).is_ok());
}

fn errors_follow_a_translated_source<A: Numbered>() {
    let (mut near, mut far) = (first::<A>(), second::<A>());
    serve(&mut near, ServiceFlags::default(), &[(pod(110), 8080)]);
    let (asker, frontend) = ((client::<A>(), 5000), (node_ip(1), PORT));
    let mut asked = udp(asker, frontend);
    assert_eq!(run!(from_uplink::<A>(&mut near, &mut asked)), Ok(Action::Tunnel(outer(2))));
    assert!(run!(from_overlay::<A>(&mut far, &mut asked.clone(), &outer(1), VNI_CLUSTER)).is_ok());
    let (stand_in, backend) = ends::<A>(&asked);
    // The backend's pod complains about what it got: the client reads of the frontend and of itself.
    let mut refused = from_mac(110, too_big(backend.0, stand_in.0, &asked));
    assert_eq!(run!(from_pod::<A>(&mut far, &mut refused, 110)), Ok(Action::Tunnel(outer(1))));
    let action = run!(from_overlay::<A>(&mut near, &mut refused, &outer(2), VNI_CLUSTER));
    assert_eq!(action, Ok(Action::World));
    assert_eq!(quoted::<A>(&refused), (asker, frontend));
    let (src, dst) = ends::<A>(&refused);
    assert_eq!((src.0, dst.0), (frontend.0, asker.0));
    // A router beyond complains about the answer: the backend reads of itself and of whom it answered.
    let mut answer = udp(backend, stand_in);
    assert!(run!(from_overlay::<A>(&mut near, &mut answer, &outer(2), VNI_CLUSTER)).is_ok());
    assert_eq!(ends::<A>(&answer), (frontend, asker));
    let mut complaint = too_big(A::numbered(201, 1), frontend.0, &answer);
    assert_eq!(run!(from_uplink::<A>(&mut near, &mut complaint)), Ok(Action::Tunnel(outer(2))));
    assert_eq!(quoted::<A>(&complaint), (backend, stand_in));
    let (src, dst) = ends::<A>(&complaint);
    assert_eq!((src.0, dst.0), (stand_in.0, backend.0));
    let action = run!(from_overlay::<A>(&mut far, &mut complaint, &outer(1), VNI_CLUSTER));
    assert!(matches!(action, Ok(Action::Deliver(_))), "{action:?}");
}

#[test]
fn errors_about_flows_with_a_translated_source_work_both_ways_in_both_families() {
    errors_follow_a_translated_source::<V4>();
    errors_follow_a_translated_source::<V6>();
}

#[test]
fn errors_that_lie_about_their_quote_change_nothing() {
    let mut env = first::<V4>();
    serve(&mut env, ServiceFlags::default(), &[(pod(10), 8080)]);
    let (asker, frontend) = ((client::<V4>(), 5000), (node_ip(1), PORT));
    let mut asked = udp(asker, frontend);
    assert!(run!(from_uplink::<V4>(&mut env, &mut asked)).is_ok());
    // About a packet that somebody else is said to have sent.
    let mut misled = from_mac(10, too_big(pod(10), V4::numbered(200, 9), &asked));
    assert_eq!(run!(from_pod::<V4>(&mut env, &mut misled, 10)), Err(DropReason::IcmpMismatch));
    // From a pod that did not get it.
    let mut meddling = from_mac(11, too_big(pod::<V4>(11), client(), &asked));
    assert_eq!(run!(from_pod::<V4>(&mut env, &mut meddling, 11)), Err(DropReason::IcmpMismatch));
    // From the network, in the name of a pod.
    let answer = udp(frontend, asker);
    let mut spoofed = too_big(pod(11), frontend.0, &answer);
    let before = spoofed.clone();
    assert_eq!(run!(from_uplink::<V4>(&mut env, &mut spoofed)), Ok(Action::Pass));
    assert_eq!(spoofed, before);
    let mut redirect = from_mac(10, too_big(pod::<V4>(10), client(), &asked));
    redirect.0[34] = 5;
    assert_eq!(run!(from_pod::<V4>(&mut env, &mut redirect, 10)), Err(DropReason::IcmpRedirect));
}

#[test]
fn what_is_for_no_frontend_passes_untouched() {
    let mut env = first::<V4>();
    serve(&mut env, ServiceFlags::default(), &[(pod(110), 8080)]);
    let asker = (client::<V4>(), 5000);
    for packet in [
        tcp(asker, (node_ip(1), 22), SYN),
        tcp(asker, (node_ip(1), PORT), ACK),
        tcp(asker, (node_ip(1), PORT), FIN | ACK),
        tcp(asker, (node_ip(2), PORT), SYN),
        tcp((pod::<V4>(110), 5000), (node_ip(1), PORT), SYN),
        tcp((V4::numbered(244, 250), 5000), (node_ip(1), PORT), SYN),
        tcp((V4::new([127, 0, 0, 1]), 5000), (node_ip(1), PORT), SYN),
        FakePacket(std::vec![0; 60]),
    ] {
        let mut sent = packet.clone();
        assert_eq!(run!(from_uplink::<V4>(&mut env, &mut sent)), Ok(Action::Pass), "{packet:?}");
        assert_eq!(sent, packet);
        assert_eq!(run!(xdp::<V4>(&mut env, &mut sent, |_| true)), Ok(Action::Pass));
        assert_eq!(sent, packet);
    }
    assert!(env.flows.is_empty(), "and leaves no trace");
}

#[test]
fn a_service_without_backends_refuses_or_is_silent() {
    let packet = || tcp((client::<V4>(), 5000), (node_ip(1), PORT), SYN);
    let mut env = first::<V4>();
    serve(&mut env, ServiceFlags::default(), &[]);
    assert_eq!(run!(from_uplink::<V4>(&mut env, &mut packet())), Ok(Action::Pass), "the stack refuses");
    let mut env = first::<V4>();
    serve(&mut env, ServiceFlags::SILENT, &[]);
    assert_eq!(run!(from_uplink::<V4>(&mut env, &mut packet())), Err(DropReason::NoLocalBackend));
    let mut env = first::<V4>();
    let value = ServiceValue { set: 1, flags: ServiceFlags::EXTERNAL, ..ServiceValue::default() };
    env.add_row((V4::numbered(150, 1), 80, 6, Scope::INSIDE), value, &[]);
    let mut packet = tcp((client::<V4>(), 5000), (V4::numbered(150, 1), 80), SYN);
    assert_eq!(run!(from_uplink::<V4>(&mut env, &mut packet)), Err(DropReason::NoBackend));
}

#[test]
fn sctp_between_different_ports_is_refused_by_name() {
    let mut env = first::<V4>();
    let flags = ServiceFlags::EXTERNAL.with(ServiceFlags::NODE_PORT);
    let value = ServiceValue { set: 1, flags, ..ServiceValue::default() };
    env.add_row((V4::default(), PORT, 132, Scope::INSIDE), value, &[(pod(10), 8080)]);
    env.add_row(
        (V4::default(), PORT + 1, 132, Scope::INSIDE),
        ServiceValue { set: 2, ..value },
        &[(pod(10), PORT + 1)],
    );
    let sctp = |port| {
        let mut packet = udp((client::<V4>(), 5000), (node_ip(1), port));
        packet.0[23] = 132;
        packet
    };
    assert_eq!(run!(from_uplink::<V4>(&mut env, &mut sctp(PORT))), Err(DropReason::SctpPort));
    assert!(matches!(run!(from_uplink::<V4>(&mut env, &mut sctp(PORT + 1))), Ok(Action::Deliver(_))));
}

fn a_host_port_answers_pods_of_other_nodes<A: Numbered>() {
    let (mut near, mut far) = (first::<A>(), second::<A>());
    let (asker, frontend) = ((pod::<A>(10), 5000), (node_ip(2), 18_080));
    let value = ServiceValue { set: 1, ..ServiceValue::default() };
    far.add_row((frontend.0, frontend.1, 6, Scope::INSIDE), value, &[(pod(110), 8080)]);
    let mut asked = from_mac(10, tcp(asker, frontend, SYN));
    assert_eq!(run!(from_pod::<A>(&mut near, &mut asked, 10)), Ok(Action::Tunnel(outer(2))));
    let action = run!(from_overlay::<A>(&mut far, &mut asked, &outer(1), VNI_CLUSTER));
    assert!(matches!(action, Ok(Action::Deliver(endpoint)) if endpoint.ifindex == 110), "{action:?}");
    let mut answer = from_mac(110, tcp((pod(110), 8080), asker, SYN | ACK));
    assert_eq!(run!(from_pod::<A>(&mut far, &mut answer, 110)), Ok(Action::Tunnel(outer(1))));
    let action = run!(from_overlay::<A>(&mut near, &mut answer, &outer(2), VNI_CLUSTER));
    assert!(matches!(action, Ok(Action::Deliver(endpoint)) if endpoint.ifindex == 10), "{action:?}");
    assert_eq!(ends::<A>(&answer), (frontend, asker));
    // A frontend that is no address of the node is nobody's business here.
    far.add_row((A::numbered(96, 1), 80, 6, Scope::INSIDE), value, &[(pod(110), 8080)]);
    let mut other = tcp(asker, (A::numbered(96, 1), 80), SYN);
    let action = run!(from_overlay::<A>(&mut far, &mut other, &outer(1), VNI_CLUSTER));
    assert_eq!(action, Err(DropReason::NoEndpoint));
}

#[test]
fn a_host_port_answers_pods_of_other_nodes_in_both_families() {
    a_host_port_answers_pods_of_other_nodes::<V4>();
    a_host_port_answers_pods_of_other_nodes::<V6>();
}

#[test]
fn another_nodes_process_may_use_node_ports_over_the_underlay() {
    let mut env = first::<V4>();
    serve(&mut env, ServiceFlags::default(), &[(pod(10), 8080)]);
    let asker = (node_ip::<V4>(2), 5000);
    let action = run!(from_uplink::<V4>(&mut env, &mut tcp(asker, (node_ip(1), PORT), SYN)));
    assert!(matches!(action, Ok(Action::Deliver(_))));
    let mut answer = from_mac(10, tcp((pod(10), 8080), asker, SYN | ACK));
    assert_eq!(run!(from_pod::<V4>(&mut env, &mut answer, 10)), Ok(Action::Tunnel(outer(2))));
    assert_eq!(ends::<V4>(&answer), ((node_ip(1), PORT), asker));
}

#[test]
fn another_nodes_process_is_never_answered_directly() {
    let (mut near, mut far) = direct::<V4>();
    near.mode = NodeMode::DSR;
    let asker = (node_ip::<V4>(2), 5000);
    let mut asked = tcp(asker, (node_ip(1), PORT), SYN);
    assert_eq!(run!(from_uplink::<V4>(&mut near, &mut asked)), Ok(Action::Tunnel(outer(2))));
    let action = run!(from_overlay::<V4>(&mut far, &mut asked, &outer(1), VNI_CLUSTER));
    assert!(matches!(action, Ok(Action::Deliver(_))), "{action:?}");
}

fn early_and_late_agree<A: Numbered>() {
    let (asker, frontend) = ((client::<A>(), 5000), (node_ip(1), PORT));
    // Far backends leave early.
    let mut env = first::<A>();
    serve(&mut env, ServiceFlags::default(), &[(pod(110), 8080)]);
    let mut asked = tcp(asker, frontend, SYN);
    assert_eq!(run!(xdp::<A>(&mut env, &mut asked, |_| true)), Ok(Action::Tunnel(outer(2))));
    assert_eq!(ends::<A>(&asked), ((gateway(1), 5000), (pod(110), 8080)));
    // Where the program cannot reach the node, the classifier does it.
    let mut unreachable = tcp((client::<A>(), 5001), frontend, SYN);
    let before = unreachable.clone();
    assert_eq!(run!(xdp::<A>(&mut env, &mut unreachable, |_| false)), Ok(Action::Pass));
    assert_eq!(unreachable, before);
    // Near ones are chosen early and reached late.
    let mut env = first::<A>();
    serve(&mut env, ServiceFlags::default(), &[(pod(10), 8080), (pod(11), 8080), (pod(110), 8080)]);
    for port in 6000..6064 {
        let mut asked = tcp((client::<A>(), port), frontend, SYN);
        let before = asked.clone();
        let early = run!(xdp::<A>(&mut env, &mut asked, |_| true));
        if early == Ok(Action::Pass) {
            assert_eq!(asked, before);
            let late = run!(from_uplink::<A>(&mut env, &mut asked));
            assert!(matches!(late, Ok(Action::Deliver(_))), "{late:?}");
        }
    }
}

#[test]
fn what_is_decided_before_the_stack_is_carried_out_behind_it() {
    early_and_late_agree::<V4>();
    early_and_late_agree::<V6>();
}

/// A packet of a conversation: which client and port, which way, and what it shows.
type Step = (u8, u16, bool, bool);

/// Backend, what it sees of the client, and whether it is on the first node.
type Reached<A> = ((A, u16), (A, u16), bool);

/// Sends packets both ways between clients and node ports through both nodes.
fn converse<A: Numbered>(steps: &[Step], dsr: bool, nat_ports: u16) -> Result<(), TestCaseError> {
    let (mut near, mut far) = if dsr { direct::<A>() } else { (first::<A>(), second::<A>()) };
    near.nat_ports = (5000, 5000 + nat_ports);
    let backends: Vec<_> = [10, 11, 110, 111].map(|number| (pod::<A>(number), 8080)).to_vec();
    serve(&mut near, ServiceFlags::default(), &backends);
    let mut answers: HashMap<(u8, u16), Reached<A>> = HashMap::new();
    for (number, port, reply, udp_only) in steps.iter().copied() {
        let asker = (A::numbered(200, number), 5000 + port);
        let frontend = (node_ip(1), PORT);
        let make = |src, dst| if udp_only { udp(src, dst) } else { tcp(src, dst, SYN) };
        let who = (number, port * 2 + u16::from(udp_only));
        let Some((backend, seen, local)) = answers.get(&who).copied().filter(|_| reply) else {
            let mut asked = make(asker, frontend);
            let end = match run!(from_uplink::<A>(&mut near, &mut asked)) {
                Ok(Action::Deliver(_)) => true,
                Ok(Action::Tunnel(_)) => {
                    prop_assert!(
                        run!(from_overlay::<A>(&mut far, &mut asked, &outer(1), VNI_CLUSTER)).is_ok()
                    );
                    false
                }
                Ok(Action::TunnelOutside(_)) => {
                    prop_assert!(run!(from_overlay::<A>(&mut far, &mut asked, &outer(1), VNI_WORLD)).is_ok());
                    false
                }
                Err(DropReason::SnatExhausted) => continue,
                other => return Err(TestCaseError::fail(std::format!("{other:?}"))),
            };
            let (seen, backend) = ends::<A>(&asked);
            let clash = answers.iter().any(|(other, known)| {
                *other != who && known.0 == backend && known.1 == seen && (other.1 & 1 == who.1 & 1)
            });
            prop_assert!(!clash, "the backend cannot tell two clients apart");
            answers.insert(who, (backend, seen, end));
            continue;
        };
        let mac = u32::from(*backend.0.octets().last().unwrap());
        let mut answer = from_mac(mac, make(backend, seen));
        if !udp_only {
            answer = from_mac(mac, tcp(backend, seen, SYN | ACK));
        }
        let home = if local { &mut near } else { &mut far };
        let mut action = run!(from_pod::<A>(home, &mut answer, mac));
        if let Ok(Action::Tunnel(_)) = action {
            action = run!(from_overlay::<A>(&mut near, &mut answer, &outer(2), VNI_CLUSTER));
        }
        prop_assert_eq!(action, Ok(Action::World));
        prop_assert_eq!(ends::<A>(&answer), (frontend, asker));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever clients send, in whichever mode, however few ports there are: an answer comes from exactly the address and
    /// port that the client sent to, and goes to exactly where the client sent from.
    #[test]
    fn an_answer_restores_what_the_client_sent_to(
        steps in prop::collection::vec((1u8..5, 0u16..4, any::<bool>(), any::<bool>()), 1..50),
        dsr in any::<bool>(), nat_ports in prop::sample::select(std::vec![3u16, 40, 60_000]),
    ) {
        converse::<V4>(&steps, dsr, nat_ports)?;
        converse::<V6>(&steps, dsr, nat_ports)?;
    }

    /// No bytes make the uplink's programs panic, and what they drop, they drop by name.
    #[test]
    fn any_bytes_pass_the_uplink(
        bytes in prop::collection::vec(any::<u8>(), 0..140),
        version in prop::sample::select(std::vec![0x45u8, 0x46, 0x60]),
        protocol in prop::sample::select(std::vec![1u8, 6, 17, 44, 58, 132]),
    ) {
        let mut bytes = bytes;
        if bytes.len() > 24 {
            bytes[14] = version;
            bytes[if version == 0x60 { 20 } else { 23 }] = protocol;
        }
        let (mut v4, mut v6) = (first::<V4>(), first::<V6>());
        serve(&mut v4, ServiceFlags::default(), &[(pod(10), 8080)]);
        serve(&mut v6, ServiceFlags::default(), &[(pod(10), 8080)]);
        let _any = run!(from_uplink::<V4>(&mut v4, &mut FakePacket(bytes.clone())));
        let _any = run!(from_uplink::<V6>(&mut v6, &mut FakePacket(bytes.clone())));
        let _any = run!(to_uplink::<V4>(&mut v4, &mut FakePacket(bytes.clone())));
        let _any = run!(to_uplink::<V6>(&mut v6, &mut FakePacket(bytes.clone())));
        let _any = run!(from_overlay::<V6>(&mut v6, &mut FakePacket(bytes.clone()), &outer(2), VNI_WORLD));
        let _any = run!(from_pod::<V6>(&mut v6, &mut FakePacket(bytes), 10));
    }
}
