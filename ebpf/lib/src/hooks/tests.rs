//! Every hook in memory: who may send what from where, and where it goes.

mod outside;

use skep_abi::{DropReason, Mac, PeerFlags, V4, V6};

use crate::fake::{FakeEnv, FakePacket, Numbered, Sent as Action, pod_mac, tcp, udp};

/// Runs a hook in an empty room.
macro_rules! run {
    ($hook:ident::<$a:ty>($env:expr, $packet:expr $(, $more:expr)*)) => {{
        let mut room = $crate::Room::<$a>::new();
        $crate::hooks::$hook($env, $packet, &mut room $(, $more)*).map(|()| $crate::fake::Sent::from(&room))
    }};
}
pub(super) use run;

const NODE: V4 = V4::new([10, 89, 0, 11]);
const OTHER: V4 = V4::new([10, 89, 0, 12]);
const OUTER: V6 = V6::from_mapped(OTHER);
const WORLD: V4 = V4::new([192, 0, 2, 1]);

fn pod(number: u8) -> V4 {
    V4::numbered(244, number)
}

fn remote() -> V4 {
    V4::numbered(244, 77)
}

fn env() -> FakeEnv<V4> {
    let mut env = FakeEnv::new();
    env.add_pod(pod(5), 5);
    env.add_pod(pod(6), 6);
    env.add_peer(pod(5), PeerFlags::LOCAL_PODS, V6::default());
    env.add_peer(pod(6), PeerFlags::LOCAL_PODS, V6::default());
    env.add_peer(pod(99), PeerFlags::LOCAL_PODS, V6::default());
    env.add_peer(NODE, PeerFlags::HOST, V6::default());
    env.add_peer(OTHER, PeerFlags::REMOTE_NODE, OUTER);
    env.add_peer(remote(), PeerFlags::REMOTE_PODS, OUTER);
    env
}

fn sent_by(mac: Mac, mut packet: FakePacket) -> FakePacket {
    packet.0[6..12].copy_from_slice(&mac);
    packet
}

fn leave(src: V4, dst: V4) -> Result<Action, DropReason> {
    let mut packet = sent_by(pod_mac(5), tcp((src, 1000), (dst, 80), 2));
    run!(from_pod::<V4>(&mut env(), &mut packet, 5))
}

#[test]
fn packets_of_a_pod_go_where_their_destination_is() {
    assert!(matches!(leave(pod(5), pod(6)), Ok(Action::Deliver(endpoint)) if endpoint.ifindex == 6));
    assert_eq!(leave(pod(5), remote()), Ok(Action::Tunnel(OUTER)));
    assert_eq!(leave(pod(5), OTHER), Ok(Action::Tunnel(OUTER)));
    assert_eq!(leave(pod(5), NODE), Ok(Action::Pass));
    assert_eq!(leave(pod(5), WORLD), Ok(Action::World));
}

#[test]
fn a_pod_cannot_send_for_another_nor_where_nobody_is() {
    assert_eq!(leave(pod(6), pod(5)), Err(DropReason::SpoofedSource));
    assert_eq!(leave(WORLD, pod(6)), Err(DropReason::SpoofedSource));
    assert_eq!(leave(pod(5), pod(99)), Err(DropReason::NoEndpoint));
    assert_eq!(leave(pod(5), pod(200)), Err(DropReason::NoEndpoint));
    assert_eq!(leave(pod(5), V4::numbered(96, 1)), Err(DropReason::NoService));
    assert_eq!(leave(pod(5), V4::new([127, 0, 0, 1])), Err(DropReason::Martian));
    assert_eq!(leave(pod(5), V4::new([224, 0, 0, 1])), Err(DropReason::GroupDestination));
    let mut stolen = sent_by(pod_mac(6), tcp((pod(5), 1), (pod(6), 2), 2));
    assert_eq!(run!(from_pod::<V4>(&mut env(), &mut stolen, 5)), Err(DropReason::SpoofedMac));
    let mut offer = sent_by(pod_mac(5), udp((pod(5), 67), (pod(6), 68)));
    assert_eq!(run!(from_pod::<V4>(&mut env(), &mut offer, 5)), Err(DropReason::DhcpServer));
}

#[test]
fn a_reply_from_a_backend_to_this_node_goes_in_by_the_node_side_pair() {
    let mut env = env();
    let frontend = V4::numbered(96, 1);
    env.add_service(frontend, 80, 6, &[(pod(5), 8080)]);
    let mut asked = tcp((NODE, 4000), (frontend, 80), 2);
    assert!(matches!(run!(from_host::<V4>(&mut env, &mut asked)), Ok(Action::Deliver(_))));
    let mut answer = sent_by(pod_mac(5), tcp((pod(5), 8080), (NODE, 4000), 18));
    assert_eq!(run!(from_pod::<V4>(&mut env, &mut answer, 5)), Ok(Action::HostIngress));
}

fn arrive(src: V4, dst: V4, outer: V6) -> Result<Action, DropReason> {
    run!(from_overlay::<V4>(&mut env(), &mut tcp((src, 1000), (dst, 80), 2), &outer, skep_abi::VNI_CLUSTER))
}

#[test]
fn the_tunnel_believes_only_the_node_that_owns_the_source() {
    assert!(matches!(arrive(remote(), pod(5), OUTER), Ok(Action::Deliver(_))));
    assert_eq!(arrive(OTHER, NODE, OUTER), Ok(Action::HostIngress));
    assert_eq!(
        arrive(remote(), pod(5), V6::from_mapped(V4::new([10, 89, 0, 13]))),
        Err(DropReason::TunnelSpoofed)
    );
    assert_eq!(arrive(pod(6), pod(5), OUTER), Err(DropReason::TunnelSpoofed));
    assert_eq!(arrive(NODE, pod(5), OUTER), Err(DropReason::TunnelSpoofed));
    assert_eq!(arrive(V4::numbered(244, 150), pod(5), OUTER), Err(DropReason::PeerUnknown));
    assert_eq!(arrive(WORLD, pod(5), OUTER), Err(DropReason::PeerUnknown));
}

#[test]
fn the_tunnel_is_no_transit() {
    assert_eq!(arrive(remote(), OTHER, OUTER), Err(DropReason::NotForThisNode));
    assert_eq!(arrive(remote(), WORLD, OUTER), Err(DropReason::NotForThisNode));
    assert_eq!(arrive(remote(), pod(99), OUTER), Err(DropReason::NoEndpoint));
}

fn reach(src: V4, came_in: bool) -> Result<Action, DropReason> {
    run!(to_pod::<V4>(&mut env(), &mut tcp((src, 1000), (pod(5), 80), 2), 5, came_in))
}

#[test]
fn the_stack_reaches_a_pod_for_this_node_and_the_world_only() {
    assert_eq!(reach(NODE, false), Ok(Action::Pass));
    assert_eq!(reach(WORLD, true), Ok(Action::Pass));
    assert_eq!(reach(NODE, true), Err(DropReason::SpoofedSource));
    assert_eq!(reach(pod(6), true), Err(DropReason::SpoofedSource));
    assert_eq!(reach(pod(150), true), Err(DropReason::PeerUnknown));
    assert_eq!(reach(remote(), true), Err(DropReason::TunnelSpoofed));
    assert_eq!(reach(OTHER, true), Err(DropReason::TunnelSpoofed));
    assert_eq!(reach(V4::new([127, 0, 0, 1]), false), Err(DropReason::Martian));
    let mut wrong = tcp((NODE, 1), (pod(6), 2), 2);
    assert_eq!(run!(to_pod::<V4>(&mut env(), &mut wrong, 5, false)), Err(DropReason::NoEndpoint));
}

fn host(src: V4, dst: V4) -> Result<Action, DropReason> {
    run!(from_host::<V4>(&mut env(), &mut tcp((src, 1000), (dst, 80), 2)))
}

#[test]
fn the_node_side_pair_serves_this_node_only() {
    assert_eq!(host(NODE, remote()), Ok(Action::Tunnel(OUTER)));
    assert_eq!(host(WORLD, remote()), Err(DropReason::SpoofedSource));
    assert_eq!(host(remote(), pod(5)), Err(DropReason::SpoofedSource));
    assert_eq!(host(NODE, NODE), Err(DropReason::Hairpin));
    assert_eq!(host(NODE, WORLD), Err(DropReason::NoRoute));
}

#[test]
fn the_stack_may_use_the_tunnel_device_for_remote_peers() {
    let send = |src, dst| run!(to_overlay::<V4>(&mut env(), &mut tcp((src, 1), (dst, 2), 2)));
    assert_eq!(send(NODE, remote()), Ok(Action::Tunnel(OUTER)));
    assert_eq!(send(NODE, pod(5)), Err(DropReason::NotForThisNode));
    assert_eq!(send(pod(5), remote()), Err(DropReason::SpoofedSource));
}
