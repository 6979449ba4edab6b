//! The maps, as `skep_abi::maps` describes them. User space creates them; the sizes here are only defaults.

use aya_ebpf::{
    Global,
    macros::map,
    maps::{HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use skep_abi::{
    BackendKey, BackendValue, Counter, CtKey, CtValue, Endpoint, FragmentKey, FragmentValue, NodeConfig,
    Peer, ServiceKey, ServiceValue, SockKey, SockValue, V4,
    addr::V4 as LpmData,
    maps::{self as spec, NO_PREALLOC},
};

/// Facts about the node, set when the object is loaded.
#[unsafe(no_mangle)]
pub static NODE: Global<NodeConfig> = Global::new(EMPTY);

const EMPTY: NodeConfig = NodeConfig {
    node_ip: V4::from_raw(0),
    gateway: V4::from_raw(0),
    service_net: V4::from_raw(0),
    service_mask: V4::from_raw(0),
    cluster_net: V4::from_raw(0),
    cluster_mask: V4::from_raw(0),
    uplink: 0,
    vxlan: 0,
    host: 0,
    net: 0,
    host_mac: [0; 6],
    net_mac: [0; 6],
};

/// Pods of this node.
#[map]
pub static ENDPOINTS4: HashMap<V4, Endpoint> = HashMap::pinned(spec::ENDPOINTS4.entries, NO_PREALLOC);

/// Who is behind an address.
#[map]
pub static IPCACHE4: LpmTrie<LpmData, Peer> = LpmTrie::pinned(spec::IPCACHE4.entries, NO_PREALLOC);

/// Frontends.
#[map]
pub static SERVICES4: HashMap<ServiceKey<V4>, ServiceValue> =
    HashMap::pinned(spec::SERVICES4.entries, NO_PREALLOC);

/// Slots of frontends.
#[map]
pub static BACKENDS4: HashMap<BackendKey, BackendValue<V4>> =
    HashMap::pinned(spec::BACKENDS4.entries, NO_PREALLOC);

/// Flows.
#[map]
pub static CONNTRACK4: LruHashMap<CtKey<V4>, CtValue<V4>> = LruHashMap::pinned(spec::CONNTRACK4.entries, 0);

/// Ports of fragmented datagrams.
#[map]
pub static FRAGMENTS4: LruHashMap<FragmentKey<V4>, FragmentValue> =
    LruHashMap::pinned(spec::FRAGMENTS4.entries, 0);

/// Translated sockets.
#[map]
pub static SOCKETS4: LruHashMap<SockKey<V4>, SockValue<V4>> = LruHashMap::pinned(spec::SOCKETS4.entries, 0);

/// Counters.
#[map]
pub static COUNTERS: PerCpuArray<Counter> = PerCpuArray::pinned(Counter::SLOTS, 0);

/// Sampled drops.
#[map]
pub static EVENTS: RingBuf = RingBuf::pinned(spec::EVENTS.entries, 0);
