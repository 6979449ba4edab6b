//! The two programs on the tunnel device.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_OK, bpf_tunnel_key},
    helpers::bpf_skb_get_tunnel_key,
};
use skep_abi::{Be16, DropReason, Hook, TC_INDEX_ENCAPSULATED, V4, VNI_CLUSTER};
use skep_ebpf_programs::{
    actions::{drop, finish, set_tunnel},
    env::KernelEnv,
    report,
    skb::Skb,
};
use skep_packet::{Action, Packet, hooks, packet::ETHERTYPE_IPV4};

/// Packets out of the tunnel.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn skep_from_vxlan(skb: *mut __sk_buff) -> i32 {
    let mut packet = Skb::new(skb);
    let outcome = match outer_source(skb) {
        _ if !is_ipv4(&packet) => Err(DropReason::UnsupportedProtocol),
        Ok(outer) => hooks::from_overlay::<V4, _, _>(&mut KernelEnv, &mut packet, outer),
        Err(reason) => Err(reason),
    };
    finish(&mut packet, Hook::FromOverlay, outcome)
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
    let mut packet = Skb::new(skb);
    if !is_ipv4(&packet) {
        return drop(skb, Hook::ToOverlay, DropReason::UnsupportedProtocol);
    }
    let length = packet.length();
    let outcome =
        hooks::to_overlay::<V4, _, _>(&mut KernelEnv, &mut packet).and_then(|action| match action {
            Action::Tunnel(node) => set_tunnel(&mut packet, node),
            _ => Err(DropReason::NotForThisNode),
        });
    match outcome {
        Ok(()) => {
            // SAFETY: the context is the program's own.
            unsafe {
                (*skb).tc_index = 0;
                (*skb).mark = 0;
            }
            report::passed(Hook::ToOverlay, length);
            TC_ACT_OK as i32
        }
        Err(reason) => drop(skb, Hook::ToOverlay, reason),
    }
}

#[inline(always)]
fn is_ipv4(packet: &Skb) -> bool {
    packet.read::<Be16>(12).is_some_and(|kind| kind.get() == ETHERTYPE_IPV4)
}

#[inline(always)]
fn outer_source(skb: *mut __sk_buff) -> Result<V4, DropReason> {
    // SAFETY: all zeros is a valid key.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    let size = size_of::<bpf_tunnel_key>() as u32;
    // SAFETY: the key lives during the call.
    let result = unsafe { bpf_skb_get_tunnel_key(skb, &raw mut key, size, 0) };
    if result != 0 || key.tunnel_id != VNI_CLUSTER {
        return Err(DropReason::UnknownVni);
    }
    // SAFETY: without the IPv6 flag the kernel fills the IPv4 member, in host order.
    Ok(V4::new(unsafe { key.__bindgen_anon_1.remote_ipv4 }.to_be_bytes()))
}
