//! Carries actions out: deliver, tunnel, hand to the stack, route to the world, drop.
//!
//! Each family's hook is a subprogram that leaves its decision in the room and answers with a [`status`];
//! [`carry_out`] follows it, and the entry point ends the run with [`finish`]. So none of them is on the stack together
//! with another.

use core::mem::offset_of;

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_INGRESS, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, BPF_FIB_LKUP_RET_NO_NEIGH,
        BPF_FIB_LKUP_RET_SUCCESS, TC_ACT_OK, TC_ACT_SHOT, bpf_fib_lookup as FibLookup, bpf_tunnel_key,
    },
    helpers::{
        bpf_fib_lookup, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_change_type,
        bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key,
    },
};
use skep_abi::{
    Be16, DropReason, Endpoint, Hook, NodeMode, TC_INDEX_DONE, TC_INDEX_ENCAPSULATED, V4, V6, VNI_CLUSTER,
    VNI_WORLD,
};
use skep_packet::{Action, Family, Packet, packet::set_macs};

use crate::{
    maps::{node, room},
    report,
    skb::Skb,
    zeros,
};

const PACKET_HOST: u32 = 0;
/// `BPF_F_DONT_FRAGMENT` is not set: what outside clients send may be larger than the tunnel's packets.
const TUNNEL_FLAGS: u64 = BPF_F_ZERO_CSUM_TX as u64;
/// The tunnel key as kernel 5.10 knows it: later ones append the local address.
const TUNNEL_KEY_SIZE: u32 = offset_of!(bpf_tunnel_key, __bindgen_anon_3) as u32;

/// Ethernet type of a packet.
#[inline(always)]
#[must_use]
pub fn ethertype<P: Packet>(packet: &P) -> u16 {
    packet.read::<Be16>(12).unwrap_or(Be16::ZERO).get()
}

/// Ends a program: counts what passed, or drops for the reason.
#[inline(always)]
pub fn finish(skb: *mut __sk_buff, hook: Hook, length: u32, code: i32) -> i32 {
    if code >= 0 {
        report::passed(hook, length);
        return code;
    }
    report::dropped(skb, hook as u8, code.unsigned_abs() as u8);
    TC_ACT_SHOT
}

/// Drops a packet for a reason.
#[inline(always)]
pub fn drop(skb: *mut __sk_buff, hook: Hook, reason: DropReason) -> i32 {
    report::dropped(skb, hook as u8, reason as u8);
    TC_ACT_SHOT
}

/// What a hook says, as a number: zero, or the reason to drop with its sign turned.
#[inline(always)]
#[must_use]
pub fn status(outcome: Result<(), DropReason>) -> i32 {
    match outcome {
        Ok(()) => 0,
        Err(reason) => -(reason as i32),
    }
}

/// Carries out what a hook has left in the room. The classifier's verdict, or, below zero, the reason to drop.
#[inline(always)]
pub fn carry_out<A: Family>(skb: *mut __sk_buff, status: i32) -> i32 {
    if status < 0 { status } else { perform::<A>(skb) }
}

/// Has a stack frame of its own, after the hook has left its.
#[inline(never)]
fn perform<A: Family>(skb: *mut __sk_buff) -> i32 {
    let Some(room) = room::<A>() else { return -(DropReason::RewriteFailed as i32) };
    let mut packet = Skb::again(skb);
    let done = match room.action {
        Action::Pass => Ok(TC_ACT_OK as i32),
        Action::Deliver => deliver(&mut packet, &room.endpoint),
        Action::Tunnel => tunnel(&mut packet, room.node, VNI_CLUSTER),
        Action::TunnelOutside => tunnel(&mut packet, room.node, VNI_WORLD),
        Action::HostIngress => to_host(&mut packet),
        Action::World => to_world::<A>(&mut packet),
        // SAFETY: the context is the program's own.
        Action::Answer => Ok(redirect(&packet, unsafe { (*skb).ifindex }, 0)),
    };
    match done {
        Ok(verdict) => verdict,
        Err(reason) => -(reason as i32),
    }
}

#[inline(always)]
fn tunnel(packet: &mut Skb, node: V6, vni: u32) -> Result<i32, DropReason> {
    set_tunnel(packet, node, vni)?;
    Ok(redirect(packet, node!(vxlan), 0))
}

/// Marks belong to the namespace that set them: none survives a redirect.
#[inline(always)]
fn clear_mark(packet: &Skb) {
    // SAFETY: the context is the program's own.
    unsafe { (*packet.as_ptr()).mark = 0 };
}

#[inline(always)]
fn redirect(packet: &Skb, ifindex: u32, flags: u32) -> i32 {
    clear_mark(packet);
    // SAFETY: no preconditions; a bad index drops the packet.
    unsafe { bpf_redirect(ifindex, flags.into()) as i32 }
}

/// The packet is for us, whatever its link-layer destination was: the receiving stack drops others' packets.
#[inline(always)]
fn adopt(packet: &Skb) {
    // SAFETY: the context is the program's own.
    unsafe {
        if (*packet.as_ptr()).pkt_type != PACKET_HOST {
            bpf_skb_change_type(packet.as_ptr(), PACKET_HOST);
        }
    }
}

#[inline(always)]
fn deliver(packet: &mut Skb, endpoint: &Endpoint) -> Result<i32, DropReason> {
    set_macs(packet, endpoint.mac, endpoint.host_mac).ok_or(DropReason::RewriteFailed)?;
    adopt(packet);
    clear_mark(packet);
    // SAFETY: no preconditions; a bad index drops the packet.
    Ok(unsafe { bpf_redirect_peer(endpoint.ifindex, 0) as i32 })
}

/// Says where the tunnel device shall send the packet, and as what.
#[inline(always)]
fn set_tunnel(packet: &mut Skb, node: V6, vni: u32) -> Result<(), DropReason> {
    // SAFETY: all zeros is a valid key.
    let mut room = unsafe { zeros::<bpf_tunnel_key>() };
    // SAFETY: it is initialised.
    let key = unsafe { room.assume_init_mut() };
    key.tunnel_id = vni;
    key.tunnel_ttl = 64;
    let mut flags = TUNNEL_FLAGS;
    match node.mapped() {
        Some(node) => key.__bindgen_anon_1.remote_ipv4 = node.number(),
        None => {
            key.__bindgen_anon_1.remote_ipv6 = node.raw();
            flags |= u64::from(BPF_F_TUNINFO_IPV6);
        }
    }
    // SAFETY: the key lives during the call.
    let result = unsafe { bpf_skb_set_tunnel_key(packet.as_ptr(), &raw mut *key, TUNNEL_KEY_SIZE, flags) };
    if result != 0 {
        return Err(DropReason::TunnelFailed);
    }
    // SAFETY: the context is the program's own.
    unsafe { (*packet.as_ptr()).tc_index = u32::from(TC_INDEX_ENCAPSULATED) };
    Ok(())
}

/// Where a packet out of the tunnel came from: the address, and, as the result, the network identifier; below zero the
/// reason to drop. Has a stack frame of its own.
#[inline(never)]
pub fn outer_source(skb: *mut __sk_buff, outer: &mut V6) -> i32 {
    let is_ipv6 = node!(mode).any(NodeMode::UNDERLAY6);
    // SAFETY: all zeros is a valid key.
    let mut room = unsafe { zeros::<bpf_tunnel_key>() };
    // SAFETY: it is initialised.
    let key = unsafe { room.assume_init_mut() };
    let flags = if is_ipv6 { u64::from(BPF_F_TUNINFO_IPV6) } else { 0 };
    // SAFETY: the key lives during the call.
    let result = unsafe { bpf_skb_get_tunnel_key(skb, &raw mut *key, TUNNEL_KEY_SIZE, flags) };
    // An identifier has 24 bits.
    if result != 0 || key.tunnel_id > i32::MAX as u32 {
        return -(DropReason::UnknownVni as i32);
    }
    *outer = if is_ipv6 {
        // SAFETY: with the IPv6 flag the kernel fills this member, in network order.
        V6::from_raw(unsafe { key.__bindgen_anon_1.remote_ipv6 })
    } else {
        // SAFETY: without the IPv6 flag the kernel fills the IPv4 member, in host order.
        let remote = unsafe { key.__bindgen_anon_1.remote_ipv4 };
        V6::from_mapped(V4::new(remote.to_be_bytes()))
    };
    key.tunnel_id as i32
}

/// A packet of this node's stack that is on the tunnel device already: it only needs to be told where to.
#[inline(never)]
pub fn into_tunnel<A: Family>(skb: *mut __sk_buff, status: i32) -> i32 {
    if status < 0 {
        return status;
    }
    let Some(room) = room::<A>() else { return -(DropReason::RewriteFailed as i32) };
    match set_tunnel(&mut Skb::again(skb), room.node, VNI_CLUSTER) {
        Ok(()) => TC_ACT_OK as i32,
        Err(reason) => -(reason as i32),
    }
}

#[inline(always)]
fn to_host(packet: &mut Skb) -> Result<i32, DropReason> {
    set_macs(packet, node!(host_mac), node!(net_mac)).ok_or(DropReason::RewriteFailed)?;
    adopt(packet);
    Ok(redirect(packet, node!(host), BPF_F_INGRESS))
}

/// Follows the node's routes as if the packet had come in on the uplink, where forwarding is on.
#[inline(always)]
fn to_world<A: Family>(packet: &mut Skb) -> Result<i32, DropReason> {
    let src: A = packet.read(A::SRC_AT).ok_or(DropReason::Malformed)?;
    let dst: A = packet.read(A::DST_AT).ok_or(DropReason::Malformed)?;
    // SAFETY: all zeros is a valid request.
    let mut room = unsafe { zeros::<FibLookup>() };
    // SAFETY: it is initialised.
    let fib = unsafe { room.assume_init_mut() };
    fib.family = A::FAMILY;
    fib.ifindex = node!(uplink);
    fib.__bindgen_anon_3.ipv6_src = src.words();
    fib.__bindgen_anon_4.ipv6_dst = dst.words();
    let size = size_of::<FibLookup>() as i32;
    // SAFETY: the request lives during the call.
    let result = unsafe { bpf_fib_lookup(packet.as_ptr().cast(), &raw mut *fib, size, 0) };
    if result != i64::from(BPF_FIB_LKUP_RET_SUCCESS) && result != i64::from(BPF_FIB_LKUP_RET_NO_NEIGH) {
        return Err(DropReason::NoRoute);
    }
    clear_mark(packet);
    // SAFETY: the context is the program's own.
    unsafe { (*packet.as_ptr()).tc_index = u32::from(TC_INDEX_DONE) };
    // SAFETY: no next hop is given, so the kernel looks the neighbour up itself.
    Ok(unsafe { bpf_redirect_neigh(fib.ifindex, core::ptr::null_mut(), 0, 0) as i32 })
}
