//! The two programs on an uplink: outside clients of Services, and what node processes answer them.
#![no_std]
#![no_main]

use aya_ebpf::bindings::{__sk_buff, TC_ACT_OK};
use skep_abi::{DropReason, Hook, TC_INDEX_DONE, V4, V6};
use skep_ebpf_programs::{
    actions::{carry_out, ethertype, finish, status},
    env::KernelEnv,
    maps::room,
    skb::Skb,
};
use skep_packet::{
    Packet, hooks,
    packet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};

/// What the link layer says of a packet that is for this machine.
const PACKET_HOST: u32 = 0;

/// Packets from the network. Those for other machines, which a bridge floods or a promiscuous device shows, are left to
/// the stack, which drops them: every node knows the frontends, and all of them would answer.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn skep_from_uplink(skb: *mut __sk_buff) -> i32 {
    // SAFETY: the context is the program's own.
    if unsafe { (*skb).pkt_type } != PACKET_HOST {
        return TC_ACT_OK as i32;
    }
    let packet = Skb::new(skb);
    let length = packet.length();
    let code = match ethertype(&packet) {
        ETHERTYPE_IPV4 => carry_out::<V4>(skb, from_uplink4(skb)),
        ETHERTYPE_IPV6 => carry_out::<V6>(skb, from_uplink6(skb)),
        _ => return TC_ACT_OK as i32,
    };
    finish(skb, Hook::FromUplink, length, code)
}

/// Packets to the network. What a program of ours has routed is done with.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn skep_to_uplink(skb: *mut __sk_buff) -> i32 {
    // SAFETY: the context is the program's own.
    if unsafe { (*skb).tc_index } == u32::from(TC_INDEX_DONE) {
        // SAFETY: the context is the program's own.
        unsafe { (*skb).tc_index = 0 };
        return TC_ACT_OK as i32;
    }
    let packet = Skb::new(skb);
    let length = packet.length();
    let code = match ethertype(&packet) {
        ETHERTYPE_IPV4 => carry_out::<V4>(skb, to_uplink4(skb)),
        ETHERTYPE_IPV6 => carry_out::<V6>(skb, to_uplink6(skb)),
        _ => return TC_ACT_OK as i32,
    };
    finish(skb, Hook::ToUplink, length, code)
}

#[inline(never)]
fn from_uplink4(skb: *mut __sk_buff) -> i32 {
    let Some(room) = room::<V4>() else { return -(DropReason::RewriteFailed as i32) };
    let mut packet = Skb::v4(skb);
    status(hooks::from_uplink::<V4, _, _>(&mut KernelEnv, &mut packet, room))
}

#[inline(never)]
fn from_uplink6(skb: *mut __sk_buff) -> i32 {
    let Some(room) = room::<V6>() else { return -(DropReason::RewriteFailed as i32) };
    let mut packet = Skb::v6(skb);
    status(hooks::from_uplink::<V6, _, _>(&mut KernelEnv, &mut packet, room))
}

#[inline(never)]
fn to_uplink4(skb: *mut __sk_buff) -> i32 {
    let Some(room) = room::<V4>() else { return -(DropReason::RewriteFailed as i32) };
    let mut packet = Skb::v4(skb);
    status(hooks::to_uplink::<V4, _, _>(&mut KernelEnv, &mut packet, room))
}

#[inline(never)]
fn to_uplink6(skb: *mut __sk_buff) -> i32 {
    let Some(room) = room::<V6>() else { return -(DropReason::RewriteFailed as i32) };
    let mut packet = Skb::v6(skb);
    status(hooks::to_uplink::<V6, _, _>(&mut KernelEnv, &mut packet, room))
}
