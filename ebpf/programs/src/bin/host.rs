//! The program on the node-side veth pair: packets of the node's processes that no socket program translated.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_redirect};
use skep_abi::{Be16, DropReason, Hook, V4};
use skep_ebpf_programs::{
    actions::{drop, finish},
    env::KernelEnv,
    maps::NODE,
    report,
    skb::Skb,
};
use skep_packet::{
    Packet,
    arp::{self, ArpPacket},
    hooks,
    packet::{ETHERTYPE_ARP, ETHERTYPE_IPV4},
};

/// Packets of the node's own processes.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn skep_from_host(skb: *mut __sk_buff) -> i32 {
    let mut packet = Skb::new(skb);
    match packet.read::<Be16>(12).unwrap_or(Be16::ZERO).get() {
        ETHERTYPE_IPV4 => {
            let outcome = hooks::from_host::<V4, _, _>(&mut KernelEnv, &mut packet);
            finish(&mut packet, Hook::FromHost, outcome)
        }
        ETHERTYPE_ARP => answer(&mut packet),
        _ => drop(skb, Hook::FromHost, DropReason::UnsupportedProtocol),
    }
}

#[inline(always)]
fn answer(packet: &mut Skb) -> i32 {
    let length = packet.length();
    let node = NODE.load();
    let outcome =
        ArpPacket::read(packet).and_then(|question| arp::from_host(packet, &question, node.net_mac));
    match outcome {
        Ok(_) => {
            report::passed(Hook::FromHost, length);
            // SAFETY: no preconditions; back to where it came from.
            unsafe { bpf_redirect(node.net, 0) as i32 }
        }
        Err(reason) => drop(packet.as_ptr(), Hook::FromHost, reason),
    }
}
