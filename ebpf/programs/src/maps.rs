//! The maps, as `skep_abi::maps` describes them. User space creates them; the sizes here are only defaults.

use aya_ebpf::{
    macros::map,
    maps::{HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use skep_abi::{
    AffinityKey, AffinityValue, BackendKey, BackendValue, Counter, CtKey, CtValue, Endpoint, FragmentKey,
    FragmentValue, Mac, MaglevChunk, MaglevKey, NodeConfig, NodeMode, Peer, ServiceKey, ServiceValue,
    SockKey, SockValue, V4, V6,
    maps::{self as spec, NO_PREALLOC},
};

use skep_packet::{Family, Room};

/// Facts about the node, set when the object is loaded. Read through [`node`], field by field.
#[unsafe(no_mangle)]
pub static NODE: NodeConfig = NodeConfig::EMPTY;

/// Reads a field of [`NODE`]. The volatile read keeps the compiler from taking the initial value for the final one.
macro_rules! node {
    ($($field:ident).+) => {
        // SAFETY: the static is initialised and never written while programs run.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::NODE.$($field).+) }
    };
}
pub(crate) use node;

/// Facts about the node that entry points need.
pub struct Node;

impl Node {
    /// Interface index of the programs' side of the node-side veth pair.
    #[inline(always)]
    pub fn net() -> u32 {
        node!(net)
    }

    /// Link-layer address of the programs' side of the node-side veth pair.
    #[inline(always)]
    pub fn net_mac() -> Mac {
        node!(net_mac)
    }

    /// Choices that hold for the whole node.
    #[inline(always)]
    pub fn mode() -> NodeMode {
        node!(mode)
    }
}

/// A network and whose sources it admits, as the longest-prefix map compares it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Source<A> {
    /// Number of the set.
    pub set: u32,
    /// The address, network order.
    pub addr: A,
}

/// Maps that exist once a family.
macro_rules! family_maps {
    ($addr:ty: $endpoints:ident $ipcache:ident $services:ident $backends:ident $sources:ident $conntrack:ident
        $fragments:ident $sockets:ident) => {
        /// Pods of this node.
        #[map]
        pub static $endpoints: HashMap<$addr, Endpoint> =
            HashMap::pinned(spec::$endpoints.entries, NO_PREALLOC);

        /// Who is behind an address.
        #[map]
        pub static $ipcache: LpmTrie<$addr, Peer> = LpmTrie::pinned(spec::$ipcache.entries, NO_PREALLOC);

        /// Frontends.
        #[map]
        pub static $services: HashMap<ServiceKey<$addr>, ServiceValue> =
            HashMap::pinned(spec::$services.entries, NO_PREALLOC);

        /// Slots of sets.
        #[map]
        pub static $backends: HashMap<BackendKey, BackendValue<$addr>> =
            HashMap::pinned(spec::$backends.entries, NO_PREALLOC);

        /// Which outside clients a set admits.
        #[map]
        pub static $sources: LpmTrie<Source<$addr>, u32> =
            LpmTrie::pinned(spec::$sources.entries, NO_PREALLOC);

        /// Flows.
        #[map]
        pub static $conntrack: LruHashMap<CtKey<$addr>, CtValue<$addr>> =
            LruHashMap::pinned(spec::$conntrack.entries, 0);

        /// Ports of fragmented datagrams.
        #[map]
        pub static $fragments: LruHashMap<FragmentKey<$addr>, FragmentValue> =
            LruHashMap::pinned(spec::$fragments.entries, 0);

        /// Translated sockets.
        #[map]
        pub static $sockets: LruHashMap<SockKey<$addr>, SockValue<$addr>> =
            LruHashMap::pinned(spec::$sockets.entries, 0);
    };
}

family_maps!(V4: ENDPOINTS4 IPCACHE4 SERVICES4 BACKENDS4 SOURCES4 CONNTRACK4 FRAGMENTS4 SOCKETS4);
family_maps!(V6: ENDPOINTS6 IPCACHE6 SERVICES6 BACKENDS6 SOURCES6 CONNTRACK6 FRAGMENTS6 SOCKETS6);

/// Maglev tables of sets, in parts.
#[map]
pub static MAGLEV: HashMap<MaglevKey, MaglevChunk> = HashMap::pinned(spec::MAGLEV.entries, NO_PREALLOC);

/// Clients that stay with a backend.
#[map]
pub static AFFINITY: LruHashMap<AffinityKey, AffinityValue> = LruHashMap::pinned(spec::AFFINITY.entries, 0);

/// Where a run of a program keeps what does not fit its stack. The verifier knows nothing of what is read back from here,
/// so it does not tell apart by which way it came to be. One run at a time on a CPU: none is interrupted by another.
#[map]
pub static ROOM: PerCpuArray<[u64; 64]> = PerCpuArray::pinned(1, 0);

/// The room of this run.
#[inline(always)]
#[must_use]
pub fn room<A: Family>() -> Option<&'static mut Room<A>> {
    // SAFETY: the pointer comes from a lookup in this program run; any bytes that were left there were a room, or zeros,
    // which are one; the library asserts that it is large enough.
    ROOM.get_ptr_mut(0).map(|room| unsafe { &mut *room.cast::<Room<A>>() })
}

/// Counters.
#[map]
pub static COUNTERS: PerCpuArray<Counter> = PerCpuArray::pinned(Counter::SLOTS, 0);

/// Sampled drops.
#[map]
pub static EVENTS: RingBuf = RingBuf::pinned(spec::EVENTS.entries, 0);
