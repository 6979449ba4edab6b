//! Which maps exist: names, kinds, sizes of keys and values. User space compares what is pinned with this table.
//!
//! Maps whose keys or values hold addresses exist once a family, as `NAME4` and `NAME6`; where the cluster has only one
//! family, user space makes the other's tiny.

use crate::{
    addr::{Addr, V4, V6},
    conntrack::{CtKey, CtValue, FragmentKey, FragmentValue},
    endpoint::Endpoint,
    event::Counter,
    ipcache::{IpcacheKey, Peer},
    service::{
        AffinityKey, AffinityValue, BackendKey, BackendValue, MaglevChunk, MaglevKey, ServiceKey,
        ServiceValue, SockKey, SockValue, SourceKey,
    },
};

/// Kinds of map in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapKind {
    /// Hash table; entries live until deleted.
    Hash,
    /// Hash table that evicts the least recently used entry.
    LruHash,
    /// Longest-prefix trie.
    LpmTrie,
    /// Array with a slot a CPU.
    PerCpuArray,
    /// Ring buffer to user space.
    RingBuf,
}

/// A map that the programs share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapSpec {
    /// Symbol in the objects and name of the pin; at most 15 bytes.
    pub name: &'static str,
    /// Kind.
    pub kind: MapKind,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
    /// Entries (bytes for a ring buffer) unless user space overrides it.
    pub entries: u32,
    /// Creation flags.
    pub flags: u32,
}

/// `BPF_F_NO_PREALLOC`.
pub const NO_PREALLOC: u32 = 1;

/// Entries of a map of a family that the cluster does not have.
pub const UNUSED_FAMILY_ENTRIES: u32 = 64;

/// Endpoints: IPv4 address to [`Endpoint`].
pub const ENDPOINTS4: MapSpec = hash::<V4, Endpoint>("ENDPOINTS4", 1024);
/// Endpoints: IPv6 address to [`Endpoint`].
pub const ENDPOINTS6: MapSpec = hash::<V6, Endpoint>("ENDPOINTS6", 1024);
/// Ipcache: [`IpcacheKey`] to [`Peer`].
pub const IPCACHE4: MapSpec = trie::<IpcacheKey<V4>, Peer>("IPCACHE4", 65_536);
/// Ipcache: [`IpcacheKey`] to [`Peer`].
pub const IPCACHE6: MapSpec = trie::<IpcacheKey<V6>, Peer>("IPCACHE6", 65_536);
/// Frontends: [`ServiceKey`] to [`ServiceValue`].
pub const SERVICES4: MapSpec = hash::<ServiceKey<V4>, ServiceValue>("SERVICES4", 65_536);
/// Frontends: [`ServiceKey`] to [`ServiceValue`].
pub const SERVICES6: MapSpec = hash::<ServiceKey<V6>, ServiceValue>("SERVICES6", 65_536);
/// Slots of sets: [`BackendKey`] to [`BackendValue`].
pub const BACKENDS4: MapSpec = hash::<BackendKey, BackendValue<V4>>("BACKENDS4", 262_144);
/// Slots of sets: [`BackendKey`] to [`BackendValue`].
pub const BACKENDS6: MapSpec = hash::<BackendKey, BackendValue<V6>>("BACKENDS6", 262_144);
/// Maglev tables of sets of both families, in parts: [`MaglevKey`] to [`MaglevChunk`].
pub const MAGLEV: MapSpec = hash::<MaglevKey, MaglevChunk>("MAGLEV", 65_536);
/// Source ranges of sets: [`SourceKey`] to one.
pub const SOURCES4: MapSpec = trie::<SourceKey<V4>, u32>("SOURCES4", 16_384);
/// Source ranges of sets: [`SourceKey`] to one.
pub const SOURCES6: MapSpec = trie::<SourceKey<V6>, u32>("SOURCES6", 16_384);
/// Clients that stay with a backend, of both families: [`AffinityKey`] to [`AffinityValue`].
pub const AFFINITY: MapSpec = lru::<AffinityKey, AffinityValue>("AFFINITY", 65_536);
/// Conntrack: [`CtKey`] to [`CtValue`].
pub const CONNTRACK4: MapSpec = lru::<CtKey<V4>, CtValue<V4>>("CONNTRACK4", 131_072);
/// Conntrack: [`CtKey`] to [`CtValue`].
pub const CONNTRACK6: MapSpec = lru::<CtKey<V6>, CtValue<V6>>("CONNTRACK6", 131_072);
/// Ports of fragmented datagrams: [`FragmentKey`] to [`FragmentValue`].
pub const FRAGMENTS4: MapSpec = lru::<FragmentKey<V4>, FragmentValue>("FRAGMENTS4", 4096);
/// Ports of fragmented datagrams: [`FragmentKey`] to [`FragmentValue`].
pub const FRAGMENTS6: MapSpec = lru::<FragmentKey<V6>, FragmentValue>("FRAGMENTS6", 4096);
/// Translated sockets: [`SockKey`] to [`SockValue`].
pub const SOCKETS4: MapSpec = lru::<SockKey<V4>, SockValue<V4>>("SOCKETS4", 32_768);
/// Translated sockets: [`SockKey`] to [`SockValue`].
pub const SOCKETS6: MapSpec = lru::<SockKey<V6>, SockValue<V6>>("SOCKETS6", 32_768);
/// Counters, see [`Counter::index`].
pub const COUNTERS: MapSpec = MapSpec {
    name: "COUNTERS",
    kind: MapKind::PerCpuArray,
    key: 4,
    value: size_of::<Counter>() as u32,
    entries: Counter::SLOTS,
    flags: 0,
};
/// Where programs keep what they know of the packet in hand: the verifier allows 512 bytes of stack. Contents mean nothing
/// between runs.
pub const ROOM: MapSpec =
    MapSpec { name: "ROOM", kind: MapKind::PerCpuArray, key: 4, value: 512, entries: 1, flags: 0 };
/// Sampled drops as [`crate::FlowEvent`].
pub const EVENTS: MapSpec =
    MapSpec { name: "EVENTS", kind: MapKind::RingBuf, key: 0, value: 0, entries: 262_144, flags: 0 };

/// Every map, in the order they are opened.
pub const ALL: &[MapSpec] = &[
    ENDPOINTS4, ENDPOINTS6, IPCACHE4, IPCACHE6, SERVICES4, SERVICES6, BACKENDS4, BACKENDS6, MAGLEV, SOURCES4,
    SOURCES6, AFFINITY, CONNTRACK4, CONNTRACK6, FRAGMENTS4, FRAGMENTS6, SOCKETS4, SOCKETS6, COUNTERS, ROOM,
    EVENTS,
];

const fn hash<K, V>(name: &'static str, entries: u32) -> MapSpec {
    spec::<K, V>(name, MapKind::Hash, entries, NO_PREALLOC)
}

const fn lru<K, V>(name: &'static str, entries: u32) -> MapSpec {
    spec::<K, V>(name, MapKind::LruHash, entries, 0)
}

const fn trie<K, V>(name: &'static str, entries: u32) -> MapSpec {
    spec::<K, V>(name, MapKind::LpmTrie, entries, NO_PREALLOC)
}

const fn spec<K, V>(name: &'static str, kind: MapKind, entries: u32, flags: u32) -> MapSpec {
    MapSpec { name, kind, key: size_of::<K>() as u32, value: size_of::<V>() as u32, entries, flags }
}

const _: () = {
    assert!(V4::BITS == 32 && V6::BITS == 128);
    let mut index = 0;
    while index < ALL.len() {
        assert!(ALL[index].name.len() <= 15, "the kernel cuts map names after 15 bytes");
        index += 1;
    }
};
