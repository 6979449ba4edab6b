//! `skep-packet`'s view of maps, clock and chance, on the kernel's helpers.

use aya_ebpf::{
    helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns},
    maps::lpm_trie::Key,
};
use skep_abi::{
    BackendKey, BackendValue, CtKey, CtValue, Endpoint, FragmentKey, FragmentValue, Peer, ServiceKey,
    ServiceValue, SockKey, SockValue, TICK_SHIFT, V4,
};
use skep_packet::env::{Balancer, Env, SockEnv};

use crate::maps::{BACKENDS4, CONNTRACK4, ENDPOINTS4, FRAGMENTS4, IPCACHE4, NODE, SERVICES4, SOCKETS4};

/// The kernel.
pub struct KernelEnv;

/// Copies a map's value; entries may be reused by the kernel while they are read, which costs at most one packet.
macro_rules! copy {
    ($map:ident, $key:expr) => {
        // SAFETY: the pointer comes from a lookup in this program run; values are plain data.
        $map.get_ptr($key).map(|value| unsafe { *value })
    };
}

impl Balancer<V4> for KernelEnv {
    #[inline(always)]
    fn random(&mut self) -> u32 {
        // SAFETY: no preconditions.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn service(&mut self, key: &ServiceKey<V4>) -> Option<ServiceValue> {
        copy!(SERVICES4, key)
    }

    #[inline(always)]
    fn backend(&mut self, key: &BackendKey) -> Option<BackendValue<V4>> {
        copy!(BACKENDS4, key)
    }
}

impl Env<V4> for KernelEnv {
    #[inline(always)]
    fn tick(&mut self) -> u32 {
        // SAFETY: no preconditions.
        (unsafe { bpf_ktime_get_ns() } >> TICK_SHIFT) as u32
    }

    #[inline(always)]
    fn endpoint(&mut self, addr: V4) -> Option<Endpoint> {
        copy!(ENDPOINTS4, &addr)
    }

    #[inline(always)]
    fn peer(&mut self, addr: V4) -> Option<Peer> {
        IPCACHE4.get(Key::new(32, addr)).copied()
    }

    #[inline(always)]
    fn is_service(&self, addr: V4) -> bool {
        NODE.load().is_service(addr)
    }

    #[inline(always)]
    fn is_cluster(&self, addr: V4) -> bool {
        NODE.load().is_cluster(addr)
    }

    #[inline(always)]
    fn flow(&mut self, key: &CtKey<V4>) -> Option<&mut CtValue<V4>> {
        // SAFETY: the pointer comes from a lookup in this program run; fields are written one by one.
        CONNTRACK4.get_ptr_mut(key).map(|value| unsafe { &mut *value })
    }

    #[inline(always)]
    fn insert_flow(&mut self, key: &CtKey<V4>, value: &CtValue<V4>) -> Option<()> {
        CONNTRACK4.insert(key, value, 0).ok()
    }

    #[inline(always)]
    fn fragment(&mut self, key: &FragmentKey<V4>) -> Option<FragmentValue> {
        copy!(FRAGMENTS4, key)
    }

    #[inline(always)]
    fn insert_fragment(&mut self, key: &FragmentKey<V4>, value: &FragmentValue) {
        let _no_room = FRAGMENTS4.insert(key, value, 0);
    }
}

impl SockEnv<V4> for KernelEnv {
    #[inline(always)]
    fn socket(&mut self, key: &SockKey<V4>) -> Option<SockValue<V4>> {
        copy!(SOCKETS4, key)
    }

    #[inline(always)]
    fn insert_socket(&mut self, key: &SockKey<V4>, value: &SockValue<V4>) -> Option<()> {
        SOCKETS4.insert(key, value, 0).ok()
    }
}
