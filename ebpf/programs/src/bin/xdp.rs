//! The program that sees an uplink's packets before the stack.
#![no_std]
#![no_main]

use aya_ebpf::bindings::{xdp_action::XDP_PASS, xdp_md};
use skep_abi::{V4, V6};
use skep_ebpf_programs::{
    actions::ethertype,
    xdp::{XdpPacket, early, finish},
};
use skep_packet::{
    Packet,
    packet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};

/// Packets from the network.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn skep_xdp(ctx: *mut xdp_md) -> i32 {
    let packet = XdpPacket::new(ctx);
    let length = packet.length();
    let code = match ethertype(&packet) {
        ETHERTYPE_IPV4 => early4(ctx),
        ETHERTYPE_IPV6 => early6(ctx),
        _ => return XDP_PASS as i32,
    };
    finish(ctx, length, code)
}

#[inline(never)]
fn early4(ctx: *mut xdp_md) -> i32 {
    early::<V4>(ctx)
}

#[inline(never)]
fn early6(ctx: *mut xdp_md) -> i32 {
    early::<V6>(ctx)
}
