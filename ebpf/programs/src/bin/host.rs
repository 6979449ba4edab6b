//! The program on the node-side veth pair: packets of the node's processes that no socket program translated.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_redirect};
use skep_abi::{DropReason, Hook, V4, V6};
use skep_ebpf_programs::{
    actions::{carry_out, ethertype, finish, status},
    env::KernelEnv,
    maps::{Node, room},
    skb::Skb,
};
use skep_packet::{
    Packet,
    arp::{self, ArpPacket},
    hooks,
    packet::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};

/// Packets of the node's own processes.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn skep_from_host(skb: *mut __sk_buff) -> i32 {
    let packet = Skb::new(skb);
    let length = packet.length();
    let code = match ethertype(&packet) {
        ETHERTYPE_IPV4 => carry_out::<V4>(skb, from_host4(skb)),
        ETHERTYPE_IPV6 => carry_out::<V6>(skb, from_host6(skb)),
        ETHERTYPE_ARP => answer(skb),
        _ => -(DropReason::UnsupportedProtocol as i32),
    };
    finish(skb, Hook::FromHost, length, code)
}

#[inline(never)]
fn from_host4(skb: *mut __sk_buff) -> i32 {
    let Some(room) = room::<V4>() else { return -(DropReason::RewriteFailed as i32) };
    let mut packet = Skb::v4(skb);
    status(hooks::from_host::<V4, _, _>(&mut KernelEnv, &mut packet, room))
}

#[inline(never)]
fn from_host6(skb: *mut __sk_buff) -> i32 {
    let Some(room) = room::<V6>() else { return -(DropReason::RewriteFailed as i32) };
    let mut packet = Skb::v6(skb);
    status(hooks::from_host::<V6, _, _>(&mut KernelEnv, &mut packet, room))
}

#[inline(never)]
fn answer(skb: *mut __sk_buff) -> i32 {
    let mut packet = Skb::v4(skb);
    let outcome =
        ArpPacket::read(&packet).and_then(|question| arp::from_host(&mut packet, &question, Node::net_mac()));
    match outcome {
        // SAFETY: no preconditions; back to where it came from.
        Ok(_) => unsafe { bpf_redirect(Node::net(), 0) as i32 },
        Err(reason) => -(reason as i32),
    }
}
