//! The two programs on the host side of a pod's veth.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_OK},
    helpers::bpf_redirect,
};
use skep_abi::{Be16, DropReason, Hook, V4};
use skep_ebpf_programs::{
    actions::{drop, finish},
    env::KernelEnv,
    report,
    skb::Skb,
};
use skep_packet::{
    Action, Env, Packet, arp,
    arp::{ArpAction, ArpPacket},
    frame::IcmpHeader,
    hooks,
    packet::{ETH_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};

const ICMP6_ROUTER_ADVERTISEMENT: u8 = 134;
const ICMP6_REDIRECT: u8 = 137;

/// Packets from the pod.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn skep_from_pod(skb: *mut __sk_buff) -> i32 {
    let mut packet = Skb::new(skb);
    // SAFETY: the context is the program's own.
    let ifindex = unsafe { (*skb).ifindex };
    match ethertype(&packet) {
        ETHERTYPE_IPV4 => {
            let outcome = hooks::from_pod::<V4, _, _>(&mut KernelEnv, &mut packet, ifindex);
            finish(&mut packet, Hook::FromPod, outcome)
        }
        ETHERTYPE_ARP => arp_from_pod(&mut packet, ifindex),
        ETHERTYPE_IPV6 => drop(skb, Hook::FromPod, ipv6_reason(&packet)),
        _ => drop(skb, Hook::FromPod, DropReason::UnsupportedProtocol),
    }
}

/// Packets from the host's stack to the pod.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn skep_to_pod(skb: *mut __sk_buff) -> i32 {
    let mut packet = Skb::new(skb);
    // SAFETY: the context is the program's own.
    let (ifindex, came_in) = unsafe { ((*skb).ifindex, (*skb).ingress_ifindex != 0) };
    match ethertype(&packet) {
        ETHERTYPE_IPV4 => {
            let outcome = hooks::to_pod::<V4, _, _>(&mut KernelEnv, &mut packet, ifindex, came_in);
            finish(&mut packet, Hook::ToPod, outcome)
        }
        ETHERTYPE_ARP => finish(&mut packet, Hook::ToPod, Ok(Action::Pass)),
        _ => drop(skb, Hook::ToPod, DropReason::UnsupportedProtocol),
    }
}

#[inline(always)]
fn ethertype(packet: &Skb) -> u16 {
    packet.read::<Be16>(12).unwrap_or(Be16::ZERO).get()
}

#[inline(always)]
fn arp_from_pod(packet: &mut Skb, ifindex: u32) -> i32 {
    let length = packet.length();
    let outcome = ArpPacket::read(packet).and_then(|question| {
        let endpoint = KernelEnv.endpoint(question.sender());
        arp::from_pod(packet, &question, endpoint, ifindex)
    });
    match outcome {
        Ok(action) => {
            report::passed(Hook::FromPod, length);
            match action {
                // SAFETY: no preconditions; back to where it came from.
                ArpAction::Answer => unsafe { bpf_redirect(ifindex, 0) as i32 },
                ArpAction::Pass => TC_ACT_OK as i32,
            }
        }
        Err(reason) => drop(packet.as_ptr(), Hook::FromPod, reason),
    }
}

/// Pods have no IPv6 yet; what a pod must never send has its own reason.
#[inline(always)]
fn ipv6_reason(packet: &Skb) -> DropReason {
    let next = packet.read::<u8>(ETH_LEN + 6).unwrap_or(0);
    let icmp: Option<IcmpHeader> = packet.read(ETH_LEN + 40);
    match (next, icmp.map(|icmp| icmp.kind)) {
        (58, Some(ICMP6_ROUTER_ADVERTISEMENT | ICMP6_REDIRECT)) => DropReason::RouterAdvertisement,
        _ => DropReason::UnsupportedProtocol,
    }
}
