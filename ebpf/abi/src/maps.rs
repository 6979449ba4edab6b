//! Which maps exist: names, kinds, sizes of keys and values. User space compares what is pinned with this table.

use crate::{
    addr::{Addr, V4},
    conntrack::{CtKey, CtValue, FragmentKey, FragmentValue},
    endpoint::Endpoint,
    event::Counter,
    ipcache::{IpcacheKey, Peer},
    service::{BackendKey, BackendValue, ServiceKey, ServiceValue, SockKey, SockValue},
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

/// Endpoints: IPv4 address to [`Endpoint`].
pub const ENDPOINTS4: MapSpec = hash::<V4, Endpoint>("ENDPOINTS4", 1024);
/// Ipcache: [`IpcacheKey`] to [`Peer`].
pub const IPCACHE4: MapSpec = MapSpec {
    name: "IPCACHE4",
    kind: MapKind::LpmTrie,
    key: size_of::<IpcacheKey<V4>>() as u32,
    value: size_of::<Peer>() as u32,
    entries: 65_536,
    flags: NO_PREALLOC,
};
/// Frontends: [`ServiceKey`] to [`ServiceValue`].
pub const SERVICES4: MapSpec = hash::<ServiceKey<V4>, ServiceValue>("SERVICES4", 65_536);
/// Slots of frontends: [`BackendKey`] to [`BackendValue`].
pub const BACKENDS4: MapSpec = hash::<BackendKey, BackendValue<V4>>("BACKENDS4", 262_144);
/// Conntrack: [`CtKey`] to [`CtValue`].
pub const CONNTRACK4: MapSpec = lru::<CtKey<V4>, CtValue<V4>>("CONNTRACK4", 131_072);
/// Ports of fragmented datagrams: [`FragmentKey`] to [`FragmentValue`].
pub const FRAGMENTS4: MapSpec = lru::<FragmentKey<V4>, FragmentValue>("FRAGMENTS4", 4096);
/// Translated sockets: [`SockKey`] to [`SockValue`].
pub const SOCKETS4: MapSpec = lru::<SockKey<V4>, SockValue<V4>>("SOCKETS4", 32_768);
/// Counters, see [`Counter::index`].
pub const COUNTERS: MapSpec = MapSpec {
    name: "COUNTERS",
    kind: MapKind::PerCpuArray,
    key: 4,
    value: size_of::<Counter>() as u32,
    entries: Counter::SLOTS,
    flags: 0,
};
/// Sampled drops as [`crate::FlowEvent`].
pub const EVENTS: MapSpec =
    MapSpec { name: "EVENTS", kind: MapKind::RingBuf, key: 0, value: 0, entries: 262_144, flags: 0 };

/// Every map, in the order they are opened.
pub const ALL: &[MapSpec] =
    &[ENDPOINTS4, IPCACHE4, SERVICES4, BACKENDS4, CONNTRACK4, FRAGMENTS4, SOCKETS4, COUNTERS, EVENTS];

const fn hash<K, V>(name: &'static str, entries: u32) -> MapSpec {
    MapSpec {
        name,
        kind: MapKind::Hash,
        key: size_of::<K>() as u32,
        value: size_of::<V>() as u32,
        entries,
        flags: NO_PREALLOC,
    }
}

const fn lru<K, V>(name: &'static str, entries: u32) -> MapSpec {
    MapSpec {
        name,
        kind: MapKind::LruHash,
        key: size_of::<K>() as u32,
        value: size_of::<V>() as u32,
        entries,
        flags: 0,
    }
}

const _: () = {
    assert!(V4::BITS == 32);
    let mut index = 0;
    while index < ALL.len() {
        assert!(ALL[index].name.len() <= 15, "the kernel cuts map names after 15 bytes");
        index += 1;
    }
};
