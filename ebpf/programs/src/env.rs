//! `skep-packet`'s view of maps, clock and chance, on the kernel's helpers.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns},
    maps::lpm_trie::Key,
};
use skep_abi::{
    AffinityKey, AffinityValue, BackendKey, BackendValue, Counter, CtKey, CtValue, Endpoint, FragmentKey,
    FragmentValue, MaglevChunk, MaglevKey, NodeMode, Peer, ServiceKey, ServiceValue, SockKey, SockValue,
    SourceKey, TICK_SHIFT, V4, V6, node::within,
};
use skep_packet::env::{Balancer, Env, SockEnv};

use crate::{maps, maps::node, report};

/// The kernel.
pub struct KernelEnv;

/// Copies a map's value; entries may be reused by the kernel while they are read, which costs at most one packet.
macro_rules! copy {
    ($map:ident, $key:expr) => {
        // SAFETY: the pointer comes from a lookup in this program run; values are plain data.
        maps::$map.get_ptr($key).map(|value| unsafe { *value })
    };
}

/// Stores an entry where there is none, and counts it: with these counts user space knows of evictions.
macro_rules! claim {
    ($map:ident, $counter:ident, $key:expr, $value:expr) => {
        match maps::$map.insert($key, $value, BPF_NOEXIST as u64) {
            Ok(()) => {
                report::added(Counter::$counter);
                Some(())
            }
            Err(_) => None,
        }
    };
}

#[inline(always)]
fn slot_of(key: &MaglevKey, index: u32) -> Option<u16> {
    let chunk = maps::MAGLEV.get_ptr(key)?;
    let slots: *const u16 = chunk.cast();
    // SAFETY: the pointer comes from a lookup in this program run, and the index is cut to the chunk's size.
    Some(unsafe { *slots.add((index & (MaglevChunk::SLOTS - 1)) as usize) })
}

macro_rules! family_env {
    ($addr:ty, $config:ident, $added:ident: $endpoints:ident $ipcache:ident $services:ident $backends:ident
        $sources:ident $conntrack:ident $fragments:ident $sockets:ident) => {
        impl Balancer<$addr> for KernelEnv {
            #[inline(always)]
            fn random(&mut self) -> u32 {
                // SAFETY: no preconditions.
                unsafe { bpf_get_prandom_u32() }
            }

            #[inline(always)]
            fn tick(&mut self) -> u32 {
                // SAFETY: no preconditions.
                (unsafe { bpf_ktime_get_ns() } >> TICK_SHIFT) as u32
            }

            #[inline(always)]
            fn service(&mut self, key: &ServiceKey<$addr>) -> Option<ServiceValue> {
                copy!($services, key)
            }

            #[inline(always)]
            fn backend(&mut self, key: &BackendKey) -> Option<BackendValue<$addr>> {
                copy!($backends, key)
            }

            #[inline(always)]
            fn affinity(&mut self, key: &AffinityKey) -> Option<AffinityValue> {
                copy!(AFFINITY, key)
            }

            #[inline(always)]
            fn insert_affinity(&mut self, key: &AffinityKey, value: &AffinityValue) {
                if claim!(AFFINITY, ADDED_AFFINITY, key, value).is_none() {
                    let _no_room = maps::AFFINITY.insert(key, value, 0);
                }
            }

            #[inline(always)]
            fn peer(&mut self, addr: $addr) -> Option<Peer> {
                maps::$ipcache.get(Key::new(<$addr as skep_abi::Addr>::BITS, addr)).copied()
            }

            #[inline(always)]
            fn node_ports(&self) -> (u16, u16) {
                (node!(node_port_first), node!(node_port_last))
            }
        }

        impl Env<$addr> for KernelEnv {
            #[inline(always)]
            fn maglev(&mut self, key: &MaglevKey, index: u32) -> Option<u16> {
                slot_of(key, index)
            }

            #[inline(always)]
            fn in_source_range(&mut self, key: &SourceKey<$addr>) -> bool {
                let source = maps::Source { set: key.set, addr: key.addr };
                maps::$sources.get(Key::new(key.bits, source)).is_some()
            }

            #[inline(always)]
            fn underlay(&mut self, addr: V6) -> Option<Peer> {
                match addr.mapped() {
                    Some(addr) => Balancer::<V4>::peer(self, addr),
                    None => Balancer::<V6>::peer(self, addr),
                }
            }

            #[inline(always)]
            fn endpoint(&mut self, addr: $addr) -> Option<Endpoint> {
                copy!($endpoints, &addr)
            }

            #[inline(always)]
            fn is_service(&self, addr: $addr) -> bool {
                within(addr, &node!($config.service_net), &node!($config.service_mask))
            }

            #[inline(always)]
            fn is_cluster(&self, addr: $addr) -> bool {
                within(addr, &node!($config.cluster_net), &node!($config.cluster_mask))
            }

            #[inline(always)]
            fn gateway(&self) -> $addr {
                node!($config.gateway)
            }

            #[inline(always)]
            fn nat_ports(&self) -> (u16, u16) {
                (node!(nat_port_first), node!(nat_port_last))
            }

            #[inline(always)]
            fn mode(&self) -> NodeMode {
                node!(mode)
            }

            #[inline(always)]
            fn flow(&mut self, key: &CtKey<$addr>) -> Option<&mut CtValue<$addr>> {
                // SAFETY: the pointer comes from a lookup in this program run; fields are written one by one.
                maps::$conntrack.get_ptr_mut(key).map(|value| unsafe { &mut *value })
            }

            #[inline(always)]
            fn insert_flow(&mut self, key: &CtKey<$addr>, value: &CtValue<$addr>) -> Option<()> {
                match claim!($conntrack, $added, key, value) {
                    None => maps::$conntrack.insert(key, value, 0).ok(),
                    done => done,
                }
            }

            #[inline(always)]
            fn claim_flow(&mut self, key: &CtKey<$addr>, value: &CtValue<$addr>) -> Option<()> {
                claim!($conntrack, $added, key, value)
            }

            #[inline(always)]
            fn fragment(&mut self, key: &FragmentKey<$addr>) -> Option<FragmentValue> {
                copy!($fragments, key)
            }

            #[inline(always)]
            fn insert_fragment(&mut self, key: &FragmentKey<$addr>, value: &FragmentValue) {
                let _no_room = maps::$fragments.insert(key, value, 0);
            }
        }

        impl SockEnv<$addr> for KernelEnv {
            #[inline(always)]
            fn socket(&mut self, key: &SockKey<$addr>) -> Option<SockValue<$addr>> {
                copy!($sockets, key)
            }

            #[inline(always)]
            fn insert_socket(&mut self, key: &SockKey<$addr>, value: &SockValue<$addr>) -> Option<()> {
                maps::$sockets.insert(key, value, 0).ok()
            }
        }
    };
}

family_env!(V4, v4, ADDED_FLOWS4:
    ENDPOINTS4 IPCACHE4 SERVICES4 BACKENDS4 SOURCES4 CONNTRACK4 FRAGMENTS4 SOCKETS4);
family_env!(V6, v6, ADDED_FLOWS6:
    ENDPOINTS6 IPCACHE6 SERVICES6 BACKENDS6 SOURCES6 CONNTRACK6 FRAGMENTS6 SOCKETS6);
