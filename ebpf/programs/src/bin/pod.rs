//! The two programs on the host side of a pod's veth.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_OK},
    helpers::bpf_redirect,
};
use skep_abi::{DropReason, Hook, V4, V6};
use skep_ebpf_programs::{
    actions::{carry_out, drop, ethertype, finish, status},
    env::KernelEnv,
    maps::room,
    skb::Skb,
};
use skep_packet::{
    Env, Packet,
    arp::{self, ArpAction, ArpPacket},
    hooks,
    packet::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};

/// Packets from the pod.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn skep_from_pod(skb: *mut __sk_buff) -> i32 {
    let packet = Skb::new(skb);
    let length = packet.length();
    let code = match ethertype(&packet) {
        ETHERTYPE_IPV4 => carry_out::<V4>(skb, from_pod4(skb)),
        ETHERTYPE_IPV6 => carry_out::<V6>(skb, from_pod6(skb)),
        ETHERTYPE_ARP => arp_from_pod(skb),
        _ => -(DropReason::UnsupportedProtocol as i32),
    };
    finish(skb, Hook::FromPod, length, code)
}

/// Packets from the host's stack to the pod.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn skep_to_pod(skb: *mut __sk_buff) -> i32 {
    let packet = Skb::new(skb);
    let length = packet.length();
    let code = match ethertype(&packet) {
        ETHERTYPE_IPV4 => carry_out::<V4>(skb, to_pod4(skb)),
        ETHERTYPE_IPV6 => carry_out::<V6>(skb, to_pod6(skb)),
        ETHERTYPE_ARP => TC_ACT_OK as i32,
        _ => return drop(skb, Hook::ToPod, DropReason::UnsupportedProtocol),
    };
    finish(skb, Hook::ToPod, length, code)
}

#[inline(never)]
fn from_pod4(skb: *mut __sk_buff) -> i32 {
    let Some(room) = room::<V4>() else { return -(DropReason::RewriteFailed as i32) };
    let mut packet = Skb::v4(skb);
    // SAFETY: the context is the program's own.
    let ifindex = unsafe { (*skb).ifindex };
    status(hooks::from_pod::<V4, _, _>(&mut KernelEnv, &mut packet, room, ifindex))
}

#[inline(never)]
fn from_pod6(skb: *mut __sk_buff) -> i32 {
    let Some(room) = room::<V6>() else { return -(DropReason::RewriteFailed as i32) };
    let mut packet = Skb::v6(skb);
    // SAFETY: the context is the program's own.
    let ifindex = unsafe { (*skb).ifindex };
    status(hooks::from_pod::<V6, _, _>(&mut KernelEnv, &mut packet, room, ifindex))
}

#[inline(never)]
fn to_pod4(skb: *mut __sk_buff) -> i32 {
    let Some(room) = room::<V4>() else { return -(DropReason::RewriteFailed as i32) };
    let mut packet = Skb::v4(skb);
    // SAFETY: the context is the program's own.
    let (ifindex, came_in) = unsafe { ((*skb).ifindex, (*skb).ingress_ifindex != 0) };
    status(hooks::to_pod::<V4, _, _>(&mut KernelEnv, &mut packet, room, ifindex, came_in))
}

#[inline(never)]
fn to_pod6(skb: *mut __sk_buff) -> i32 {
    let Some(room) = room::<V6>() else { return -(DropReason::RewriteFailed as i32) };
    let mut packet = Skb::v6(skb);
    // SAFETY: the context is the program's own.
    let (ifindex, came_in) = unsafe { ((*skb).ifindex, (*skb).ingress_ifindex != 0) };
    status(hooks::to_pod::<V6, _, _>(&mut KernelEnv, &mut packet, room, ifindex, came_in))
}

#[inline(never)]
fn arp_from_pod(skb: *mut __sk_buff) -> i32 {
    let mut packet = Skb::v4(skb);
    // SAFETY: the context is the program's own.
    let ifindex = unsafe { (*skb).ifindex };
    let outcome = ArpPacket::read(&packet).and_then(|question| {
        let endpoint = Env::<V4>::endpoint(&mut KernelEnv, question.sender());
        arp::from_pod(&mut packet, &question, endpoint, ifindex)
    });
    match outcome {
        // SAFETY: no preconditions; back to where it came from.
        Ok(ArpAction::Answer) => unsafe { bpf_redirect(ifindex, 0) as i32 },
        Ok(ArpAction::Pass) => TC_ACT_OK as i32,
        Err(reason) => -(reason as i32),
    }
}
