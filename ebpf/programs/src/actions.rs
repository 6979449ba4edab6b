//! Carries actions out: deliver, tunnel, hand to the stack, route to the world, drop.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_INGRESS, BPF_F_ZERO_CSUM_TX, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
        TC_ACT_OK, TC_ACT_SHOT, bpf_fib_lookup as FibLookup, bpf_tunnel_key,
    },
    helpers::{
        bpf_fib_lookup, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_change_type,
        bpf_skb_set_tunnel_key,
    },
};
use skep_abi::{DropReason, Endpoint, Hook, TC_INDEX_ENCAPSULATED, V4, VNI_CLUSTER};
use skep_packet::{
    Action, Packet,
    family::Ipv4Header,
    packet::{ETH_LEN, set_macs},
};

use crate::{maps::NODE, report, skb::Skb};

const PACKET_HOST: u32 = 0;

/// Ends a program: carries the action out and counts the packet, or drops it.
#[inline(always)]
pub fn finish(packet: &mut Skb, hook: Hook, outcome: Result<Action, DropReason>) -> i32 {
    let length = packet.length();
    match outcome.and_then(|action| perform(packet, action)) {
        Ok(verdict) => {
            report::passed(hook, length);
            verdict
        }
        Err(reason) => drop(packet.as_ptr(), hook, reason),
    }
}

/// Drops a packet for a reason.
#[inline(always)]
pub fn drop(skb: *mut __sk_buff, hook: Hook, reason: DropReason) -> i32 {
    report::dropped(skb, hook as u8, reason as u8);
    TC_ACT_SHOT
}

#[inline(always)]
fn perform(packet: &mut Skb, action: Action) -> Result<i32, DropReason> {
    match action {
        Action::Pass => Ok(TC_ACT_OK as i32),
        Action::Deliver(endpoint) => deliver(packet, &endpoint),
        Action::Tunnel(node) => {
            set_tunnel(packet, node)?;
            Ok(redirect(packet, NODE.load().vxlan, 0))
        }
        Action::HostIngress => to_host(packet),
        Action::World => to_world(packet),
    }
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

/// Says where the tunnel device shall send the packet.
///
/// # Errors
/// [`DropReason::TunnelFailed`].
#[inline(always)]
pub fn set_tunnel(packet: &mut Skb, node: V4) -> Result<(), DropReason> {
    // SAFETY: all zeros is a valid key.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    key.tunnel_id = VNI_CLUSTER;
    key.__bindgen_anon_1.remote_ipv4 = node.number();
    key.tunnel_ttl = 64;
    let size = size_of::<bpf_tunnel_key>() as u32;
    // SAFETY: the key lives during the call.
    let result =
        unsafe { bpf_skb_set_tunnel_key(packet.as_ptr(), &raw mut key, size, u64::from(BPF_F_ZERO_CSUM_TX)) };
    if result != 0 {
        return Err(DropReason::TunnelFailed);
    }
    // SAFETY: the context is the program's own.
    unsafe { (*packet.as_ptr()).tc_index = u32::from(TC_INDEX_ENCAPSULATED) };
    Ok(())
}

#[inline(always)]
fn to_host(packet: &mut Skb) -> Result<i32, DropReason> {
    let node = NODE.load();
    set_macs(packet, node.host_mac, node.net_mac).ok_or(DropReason::RewriteFailed)?;
    adopt(packet);
    Ok(redirect(packet, node.host, BPF_F_INGRESS))
}

/// Follows the node's routes as if the packet had come in on the uplink, where forwarding is on.
#[inline(always)]
fn to_world(packet: &mut Skb) -> Result<i32, DropReason> {
    let header: Ipv4Header = packet.read(ETH_LEN).ok_or(DropReason::Malformed)?;
    // SAFETY: all zeros is a valid request.
    let mut fib: FibLookup = unsafe { core::mem::zeroed() };
    fib.family = 2;
    fib.l4_protocol = header.protocol;
    fib.ifindex = NODE.load().uplink;
    fib.__bindgen_anon_3.ipv4_src = header.src.raw();
    fib.__bindgen_anon_4.ipv4_dst = header.dst.raw();
    let size = size_of::<FibLookup>() as i32;
    // SAFETY: the request lives during the call.
    let result = unsafe { bpf_fib_lookup(packet.as_ptr().cast(), &raw mut fib, size, 0) };
    if result != i64::from(BPF_FIB_LKUP_RET_SUCCESS) && result != i64::from(BPF_FIB_LKUP_RET_NO_NEIGH) {
        return Err(DropReason::NoRoute);
    }
    clear_mark(packet);
    // SAFETY: no next hop is given, so the kernel looks the neighbour up itself.
    Ok(unsafe { bpf_redirect_neigh(fib.ifindex, core::ptr::null_mut(), 0, 0) as i32 })
}
