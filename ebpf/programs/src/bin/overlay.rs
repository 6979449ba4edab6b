//! The two programs on the tunnel device.
#![no_std]
#![no_main]

use aya_ebpf::bindings::{__sk_buff, TC_ACT_OK};
use skep_abi::{DropReason, Hook, TC_INDEX_ENCAPSULATED, V4, V6};
use skep_ebpf_programs::{
    actions::{carry_out, ethertype, finish, into_tunnel, outer_source, status},
    env::KernelEnv,
    maps::room,
    skb::Skb,
};
use skep_packet::{
    Packet, hooks,
    packet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};

/// Packets out of the tunnel.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn skep_from_vxlan(skb: *mut __sk_buff) -> i32 {
    let packet = Skb::new(skb);
    let length = packet.length();
    let code = match ethertype(&packet) {
        ETHERTYPE_IPV4 => carry_out::<V4>(skb, from_overlay4(skb)),
        ETHERTYPE_IPV6 => carry_out::<V6>(skb, from_overlay6(skb)),
        _ => -(DropReason::UnsupportedProtocol as i32),
    };
    finish(skb, Hook::FromOverlay, length, code)
}

/// Packets into the tunnel: those that a program has sent here know their way, those of the stack do not.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn skep_to_vxlan(skb: *mut __sk_buff) -> i32 {
    // SAFETY: the context is the program's own.
    if unsafe { (*skb).tc_index } == u32::from(TC_INDEX_ENCAPSULATED) {
        // SAFETY: the context is the program's own.
        unsafe { (*skb).tc_index = 0 };
        return TC_ACT_OK as i32;
    }
    let packet = Skb::new(skb);
    let length = packet.length();
    let code = match ethertype(&packet) {
        ETHERTYPE_IPV4 => into_tunnel::<V4>(skb, to_overlay4(skb)),
        ETHERTYPE_IPV6 => into_tunnel::<V6>(skb, to_overlay6(skb)),
        _ => -(DropReason::UnsupportedProtocol as i32),
    };
    // SAFETY: the context is the program's own.
    unsafe {
        (*skb).tc_index = 0;
        (*skb).mark = 0;
    }
    finish(skb, Hook::ToOverlay, length, code)
}

#[inline(never)]
fn from_overlay4(skb: *mut __sk_buff) -> i32 {
    let Some(room) = room::<V4>() else { return -(DropReason::RewriteFailed as i32) };
    let mut outer = V6::from_raw([0; 4]);
    let vni = outer_source(skb, &mut outer);
    if vni < 0 {
        return vni;
    }
    let mut packet = Skb::v4(skb);
    status(hooks::from_overlay::<V4, _, _>(&mut KernelEnv, &mut packet, room, &outer, vni as u32))
}

#[inline(never)]
fn from_overlay6(skb: *mut __sk_buff) -> i32 {
    let Some(room) = room::<V6>() else { return -(DropReason::RewriteFailed as i32) };
    let mut outer = V6::from_raw([0; 4]);
    let vni = outer_source(skb, &mut outer);
    if vni < 0 {
        return vni;
    }
    let mut packet = Skb::v6(skb);
    status(hooks::from_overlay::<V6, _, _>(&mut KernelEnv, &mut packet, room, &outer, vni as u32))
}

#[inline(never)]
fn to_overlay4(skb: *mut __sk_buff) -> i32 {
    let Some(room) = room::<V4>() else { return -(DropReason::RewriteFailed as i32) };
    status(hooks::to_overlay::<V4, _, _>(&mut KernelEnv, &mut Skb::v4(skb), room))
}

#[inline(never)]
fn to_overlay6(skb: *mut __sk_buff) -> i32 {
    let Some(room) = room::<V6>() else { return -(DropReason::RewriteFailed as i32) };
    status(hooks::to_overlay::<V6, _, _>(&mut KernelEnv, &mut Skb::v6(skb), room))
}
