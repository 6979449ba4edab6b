//! Questions of pods in memory: what the answer says, and who may not ask or answer.

use std::vec::Vec;

use skep_abi::{DropReason, V6};

use crate::{
    Action, Room,
    fake::{FakeEnv, FakePacket, Numbered, build, is_sound, pod_mac},
    hooks,
};

fn pod() -> V6 {
    V6::numbered(244, 5)
}

fn gateway() -> V6 {
    V6::numbered(244, 1)
}

fn group(number: u8) -> V6 {
    let mut octets = [0; 16];
    (octets[0], octets[1], octets[11], octets[12], octets[15]) = (0xff, 2, 1, 0xff, number);
    V6::new(octets)
}

fn message(src: V6, dst: V6, kind: u8, target: V6) -> FakePacket {
    let mut l4: Vec<u8> = std::vec![kind, 0, 0, 0, 0, 0, 0, 0];
    l4.extend(target.octets());
    l4.extend([1, 1]);
    l4.extend(pod_mac(5));
    let mut packet = build(src, dst, 58, l4, 2);
    packet.0[6..12].copy_from_slice(&pod_mac(5));
    packet.0[21] = 255;
    packet
}

fn send(packet: &mut FakePacket) -> Result<Action, DropReason> {
    let mut env = FakeEnv::<V6>::new();
    env.add_pod(pod(), 5);
    let mut room = Room::new();
    hooks::from_pod::<V6, _, _>(&mut env, packet, &mut room, 5).map(|()| room.action)
}

#[test]
fn a_question_for_any_address_is_answered_with_the_host_side() {
    let mut packet = message(pod(), group(1), 135, gateway());
    assert_eq!(send(&mut packet), Ok(Action::Answer));
    assert!(is_sound::<V6>(&packet), "the checksum is wrong");
    assert_eq!(packet.0[0..6], pod_mac(5), "to whoever asked");
    assert_eq!(packet.0[22..38], gateway().octets());
    assert_eq!(packet.0[38..54], pod().octets());
    assert_eq!(packet.0[54], 136);
    assert_eq!(packet.0[58], 0xe0);
    assert_eq!(packet.0[62..78], gateway().octets());
    assert_eq!(packet.0[78..86], [2, 1, 9, 9, 9, 9, 9, 9]);
}

#[test]
fn pods_neither_claim_addresses_nor_routers() {
    assert_eq!(send(&mut message(pod(), gateway(), 136, gateway())), Err(DropReason::SpoofedNeighbour));
    assert_eq!(send(&mut message(pod(), gateway(), 136, pod())), Ok(Action::Pass));
    assert_eq!(send(&mut message(pod(), group(1), 134, pod())), Err(DropReason::RouterAdvertisement));
    assert_eq!(send(&mut message(pod(), gateway(), 137, pod())), Err(DropReason::IcmpRedirect));
    assert_eq!(send(&mut message(pod(), group(5), 135, pod())), Err(DropReason::SpoofedNeighbour));
    let mut far = message(pod(), group(1), 135, gateway());
    far.0[21] = 64;
    assert_eq!(send(&mut far), Err(DropReason::Malformed));
}

#[test]
fn a_pod_cannot_reach_beyond_the_node_by_link_local_addresses() {
    let mut octets = [0; 16];
    (octets[0], octets[1], octets[15]) = (0xfe, 0x80, 7);
    let mut packet = crate::fake::tcp((pod(), 1), (V6::new(octets), 80), 2);
    packet.0[6..12].copy_from_slice(&pod_mac(5));
    assert_eq!(send(&mut packet), Err(DropReason::GroupDestination));
}

#[test]
fn what_stacks_say_by_themselves_is_no_spoofing() {
    let mut link_local = [0; 16];
    (link_local[0], link_local[1], link_local[15]) = (0xfe, 0x80, 5);
    for src in [V6::default(), V6::new(link_local)] {
        for kind in [133, 135, 143] {
            let packet = &mut message(src, group(5), kind, pod());
            assert_eq!(send(packet), Err(DropReason::GroupDestination));
        }
        let packet = &mut message(src, gateway(), 135, gateway());
        assert_eq!(send(packet), Err(DropReason::SpoofedSource), "but to one host it is");
    }
}
