//! The least that programs could do: what benchmarks hold the real ones against. Never attached on a node.
//!
//! Stands alone: linking the shared library would bring its maps along.
#![no_std]
#![no_main]

use aya_ebpf::{
    Global,
    bindings::{__sk_buff, TC_ACT_OK},
    helpers::{bpf_redirect_neigh, bpf_redirect_peer},
};

/// Ethernet type of IPv4, as its bytes read on a little-endian machine.
const IPV4: u16 = 0x0800_u16.to_be();

/// Interface index of the uplink.
#[unsafe(no_mangle)]
pub static LIMIT_UPLINK: Global<u32> = Global::new(0);

/// Interface index of the only pod's veth.
#[unsafe(no_mangle)]
pub static LIMIT_POD: Global<u32> = Global::new(0);

/// Does nothing.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn limit_noop(_skb: *mut __sk_buff) -> i32 {
    TC_ACT_OK as i32
}

/// Sends whatever a pod says out of the uplink.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn limit_from_pod(skb: *mut __sk_buff) -> i32 {
    // SAFETY: the context is the program's own.
    if unsafe { (*skb).protocol } != u32::from(IPV4) {
        return TC_ACT_OK as i32;
    }
    // SAFETY: no next hop is given, so the kernel looks the neighbour up itself.
    unsafe { bpf_redirect_neigh(LIMIT_UPLINK.load(), core::ptr::null_mut(), 0, 0) as i32 }
}

/// Gives whatever is for 10.244.0.0/16 to the pod.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn limit_from_uplink(skb: *mut __sk_buff) -> i32 {
    // SAFETY: the context is the program's own.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    if data + 34 > end {
        return TC_ACT_OK as i32;
    }
    // SAFETY: the range was checked.
    let network = unsafe { *((data + 30) as *const u16) };
    if network != 0x0af4_u16.to_be() {
        return TC_ACT_OK as i32;
    }
    // SAFETY: no preconditions; a bad index drops the packet.
    unsafe { bpf_redirect_peer(LIMIT_POD.load(), 0) as i32 }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: no program holds a path that leads here; the verifier proves it at load time.
    unsafe { core::hint::unreachable_unchecked() }
}

/// The licence that the helpers in use demand.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
