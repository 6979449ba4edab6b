//! Rows as bytes: one codec a map, generic over the address family where the map exists once a family.

use std::{
    marker::PhantomData,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use skep_abi::{
    Addr, BackendKey, BackendValue, Be16, IpcacheKey, ServiceFlags, ServiceKey, ServiceValue, SourceKey, V4,
    V6,
    ipcache::PeerFlags,
    maps::{self, MapSpec},
    service,
};
use skep_model::{FrontendAddress, IpCidr, MacAddr, Port, Protocol};

use crate::{
    kernel::Codec,
    rows::{
        BackendAddress, BackendSlot, Endpoint, Frontend, FrontendFlags, FrontendKey, MaglevChunk, MaglevKey,
        Peer, PeerKind, Scope, SourceRange,
    },
};

/// An address family as user space sees it: its addresses, and its maps.
pub(crate) trait Family: Addr + Send + Sync {
    const ENDPOINTS: MapSpec;
    const IPCACHE: MapSpec;
    const SERVICES: MapSpec;
    const BACKENDS: MapSpec;
    const SOURCES: MapSpec;
    const CONNTRACK: MapSpec;

    fn from_ip(ip: IpAddr) -> Option<Self>;
    fn to_ip(self) -> IpAddr;
    fn from_words(words: [u32; 4]) -> Self;
}

impl Family for V4 {
    const ENDPOINTS: MapSpec = maps::ENDPOINTS4;
    const IPCACHE: MapSpec = maps::IPCACHE4;
    const SERVICES: MapSpec = maps::SERVICES4;
    const BACKENDS: MapSpec = maps::BACKENDS4;
    const SOURCES: MapSpec = maps::SOURCES4;
    const CONNTRACK: MapSpec = maps::CONNTRACK4;

    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(ip) => Some(V4::new(ip.octets())),
            IpAddr::V6(_) => None,
        }
    }

    fn to_ip(self) -> IpAddr {
        Ipv4Addr::from(self.octets()).into()
    }

    fn from_words(words: [u32; 4]) -> Self {
        V4::from_raw(words[0])
    }
}

impl Family for V6 {
    const ENDPOINTS: MapSpec = maps::ENDPOINTS6;
    const IPCACHE: MapSpec = maps::IPCACHE6;
    const SERVICES: MapSpec = maps::SERVICES6;
    const BACKENDS: MapSpec = maps::BACKENDS6;
    const SOURCES: MapSpec = maps::SOURCES6;
    const CONNTRACK: MapSpec = maps::CONNTRACK6;

    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => Some(V6::new(ip.octets())),
        }
    }

    fn to_ip(self) -> IpAddr {
        Ipv6Addr::from(self.octets()).into()
    }

    fn from_words(words: [u32; 4]) -> Self {
        V6::from_raw(words)
    }
}

/// The address of a node as the ipcache holds it: IPv4 as a mapped address.
pub(crate) fn underlay(ip: IpAddr) -> V6 {
    match ip {
        IpAddr::V4(ip) => V6::from_mapped(V4::new(ip.octets())),
        IpAddr::V6(ip) => V6::new(ip.octets()),
    }
}

fn from_underlay(addr: V6) -> IpAddr {
    addr.mapped().map_or_else(|| addr.to_ip(), |v4| v4.to_ip())
}

pub(crate) struct Endpoints<A>(PhantomData<A>);

impl<A: Family> Codec for Endpoints<A> {
    type Key = IpAddr;
    type Value = Endpoint;
    type RawKey = A;
    type RawValue = skep_abi::Endpoint;
    const SPEC: MapSpec = A::ENDPOINTS;

    fn key(key: &IpAddr) -> Option<A> {
        A::from_ip(*key)
    }

    fn value(value: &Endpoint) -> Option<skep_abi::Endpoint> {
        Some(skep_abi::Endpoint { ifindex: value.ifindex, mac: value.mac.0, host_mac: value.host_mac.0 })
    }

    fn row(key: A, value: skep_abi::Endpoint) -> Option<(IpAddr, Endpoint)> {
        let endpoint =
            Endpoint { ifindex: value.ifindex, mac: MacAddr(value.mac), host_mac: MacAddr(value.host_mac) };
        Some((key.to_ip(), endpoint))
    }
}

pub(crate) struct Ipcache<A>(PhantomData<A>);

impl<A: Family> Codec for Ipcache<A> {
    type Key = IpCidr;
    type Value = Peer;
    type RawKey = IpcacheKey<A>;
    type RawValue = skep_abi::Peer;
    const SPEC: MapSpec = A::IPCACHE;

    fn key(key: &IpCidr) -> Option<IpcacheKey<A>> {
        Some(IpcacheKey { bits: u32::from(key.length()), addr: A::from_ip(key.network())? })
    }

    fn value(value: &Peer) -> Option<skep_abi::Peer> {
        let (node, mut flags) = match value.kind {
            PeerKind::Host => (V6::default(), PeerFlags::HOST),
            PeerKind::LocalPods => (V6::default(), PeerFlags::LOCAL_PODS),
            PeerKind::RemoteNode(node) => (underlay(node), PeerFlags::REMOTE_NODE),
            PeerKind::RemotePods(node) => (underlay(node), PeerFlags::REMOTE_PODS),
        };
        if value.node_port {
            flags = flags.with(PeerFlags::NODE_PORT);
        }
        Some(skep_abi::Peer { node, class: value.class, flags })
    }

    fn row(key: IpcacheKey<A>, value: skep_abi::Peer) -> Option<(IpCidr, Peer)> {
        let cidr = IpCidr::new(key.addr.to_ip(), u8::try_from(key.bits).ok()?)?;
        let node = from_underlay(value.node);
        let kind = match PeerFlags(value.flags.0 & !PeerFlags::NODE_PORT.0) {
            PeerFlags::HOST => PeerKind::Host,
            PeerFlags::LOCAL_PODS => PeerKind::LocalPods,
            PeerFlags::REMOTE_NODE => PeerKind::RemoteNode(node),
            PeerFlags::REMOTE_PODS => PeerKind::RemotePods(node),
            _ => return None,
        };
        Some((cidr, Peer { kind, class: value.class, node_port: value.flags.any(PeerFlags::NODE_PORT) }))
    }
}

fn to_scope(scope: Scope) -> service::Scope {
    match scope {
        Scope::Inside => service::Scope::INSIDE,
        Scope::Outside => service::Scope::OUTSIDE,
        Scope::Local => service::Scope::LOCAL,
    }
}

fn from_scope(scope: service::Scope) -> Option<Scope> {
    match scope {
        service::Scope::INSIDE => Some(Scope::Inside),
        service::Scope::OUTSIDE => Some(Scope::Outside),
        service::Scope::LOCAL => Some(Scope::Local),
        _ => None,
    }
}

fn to_flags(flags: FrontendFlags) -> ServiceFlags {
    [
        (flags.external, ServiceFlags::EXTERNAL),
        (flags.split, ServiceFlags::SPLIT),
        (flags.source_ranges, ServiceFlags::SOURCE_RANGES),
        (flags.silent, ServiceFlags::SILENT),
        (flags.node_port, ServiceFlags::NODE_PORT),
    ]
    .into_iter()
    .filter(|(set, _)| *set)
    .fold(ServiceFlags::default(), |flags, (_, bit)| flags.with(bit))
}

fn from_flags(flags: ServiceFlags) -> FrontendFlags {
    FrontendFlags {
        external: flags.any(ServiceFlags::EXTERNAL),
        split: flags.any(ServiceFlags::SPLIT),
        source_ranges: flags.any(ServiceFlags::SOURCE_RANGES),
        silent: flags.any(ServiceFlags::SILENT),
        node_port: flags.any(ServiceFlags::NODE_PORT),
    }
}

pub(crate) struct Services<A>(PhantomData<A>);

impl<A: Family> Codec for Services<A> {
    type Key = FrontendKey;
    type Value = Frontend;
    type RawKey = ServiceKey<A>;
    type RawValue = ServiceValue;
    const SPEC: MapSpec = A::SERVICES;

    fn key(key: &FrontendKey) -> Option<ServiceKey<A>> {
        let address = key.address;
        let (port, protocol) = (Be16::new(address.port.get()), address.protocol.number());
        Some(ServiceKey::new(A::from_ip(address.ip)?, port, protocol, to_scope(key.scope)))
    }

    fn value(value: &Frontend) -> Option<ServiceValue> {
        Some(ServiceValue {
            set: value.set,
            count: value.count,
            flags: to_flags(value.flags),
            affinity: value.affinity_seconds,
            maglev: value.maglev,
            pad: 0,
        })
    }

    fn row(key: ServiceKey<A>, value: ServiceValue) -> Option<(FrontendKey, Frontend)> {
        let address = FrontendAddress {
            ip: key.addr.to_ip(),
            port: Port::new(key.port.get())?,
            protocol: Protocol::from_number(key.protocol)?,
        };
        let frontend = Frontend {
            set: value.set,
            count: value.count,
            flags: from_flags(value.flags),
            affinity_seconds: value.affinity,
            maglev: value.maglev,
        };
        Some((FrontendKey { address, scope: from_scope(key.scope)? }, frontend))
    }
}

pub(crate) struct Backends<A>(PhantomData<A>);

impl<A: Family> Codec for Backends<A> {
    type Key = BackendSlot;
    type Value = BackendAddress;
    type RawKey = BackendKey;
    type RawValue = BackendValue<A>;
    const SPEC: MapSpec = A::BACKENDS;

    fn key(key: &BackendSlot) -> Option<BackendKey> {
        Some(BackendKey { set: key.set, slot: u32::from(key.slot) })
    }

    fn value(value: &BackendAddress) -> Option<BackendValue<A>> {
        Some(BackendValue::new(A::from_ip(value.ip)?, Be16::new(value.port)))
    }

    fn row(key: BackendKey, value: BackendValue<A>) -> Option<(BackendSlot, BackendAddress)> {
        let slot = BackendSlot { set: key.set, slot: u16::try_from(key.slot).ok()? };
        Some((slot, BackendAddress { ip: value.addr.to_ip(), port: value.port.get() }))
    }
}

pub(crate) struct Maglev;

impl Codec for Maglev {
    type Key = MaglevKey;
    type Value = MaglevChunk;
    type RawKey = skep_abi::MaglevKey;
    type RawValue = skep_abi::MaglevChunk;
    const SPEC: MapSpec = maps::MAGLEV;

    fn key(key: &MaglevKey) -> Option<skep_abi::MaglevKey> {
        Some(skep_abi::MaglevKey { set: key.set, chunk: key.chunk })
    }

    fn value(value: &MaglevChunk) -> Option<skep_abi::MaglevChunk> {
        Some(skep_abi::MaglevChunk { slots: *value })
    }

    fn row(key: skep_abi::MaglevKey, value: skep_abi::MaglevChunk) -> Option<(MaglevKey, MaglevChunk)> {
        Some((MaglevKey { set: key.set, chunk: key.chunk }, value.slots))
    }
}

pub(crate) struct Sources<A>(PhantomData<A>);

impl<A: Family> Codec for Sources<A> {
    type Key = SourceRange;
    type Value = ();
    type RawKey = SourceKey<A>;
    type RawValue = u32;
    const SPEC: MapSpec = A::SOURCES;

    fn key(key: &SourceRange) -> Option<SourceKey<A>> {
        let bits = SourceKey::<A>::SET_BITS + u32::from(key.cidr.length());
        // The trie compares bit by bit from the first byte: the set's number counts in full, in whatever order.
        Some(SourceKey { bits, set: key.set, addr: A::from_ip(key.cidr.network())? })
    }

    fn value((): &()) -> Option<u32> {
        Some(1)
    }

    fn row(key: SourceKey<A>, _value: u32) -> Option<(SourceRange, ())> {
        let length = key.bits.checked_sub(SourceKey::<A>::SET_BITS)?;
        let cidr = IpCidr::new(key.addr.to_ip(), u8::try_from(length).ok()?)?;
        Some((SourceRange { set: key.set, cidr }, ()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<C: Codec>(key: &C::Key, value: &C::Value) -> (C::Key, C::Value) {
        C::row(C::key(key).unwrap(), C::value(value).unwrap()).unwrap()
    }

    #[test]
    fn peers_of_every_kind_round_trip_over_either_underlay() {
        for node in ["10.89.0.12", "fd00:89::12"] {
            let node: IpAddr = node.parse().unwrap();
            let kinds =
                [PeerKind::Host, PeerKind::LocalPods, PeerKind::RemoteNode(node), PeerKind::RemotePods(node)];
            for kind in kinds {
                let peer = Peer::new(kind).with_node_port(true);
                let v4: IpCidr = "10.244.2.0/24".parse().unwrap();
                assert_eq!(round_trip::<Ipcache<V4>>(&v4, &peer), (v4, peer));
                let v6: IpCidr = "fd00:244:0:2::/64".parse().unwrap();
                assert_eq!(round_trip::<Ipcache<V6>>(&v6, &peer), (v6, peer));
            }
        }
    }

    #[test]
    fn frontends_backends_and_ranges_round_trip_in_both_families() {
        for ip in ["10.96.0.10", "fd00:96::a"] {
            let ip: IpAddr = ip.parse().unwrap();
            let address = FrontendAddress { ip, port: Port::new(53).unwrap(), protocol: Protocol::Sctp };
            let flags = FrontendFlags { external: true, silent: true, ..FrontendFlags::default() };
            let value = Frontend { set: 7, count: 3, flags, affinity_seconds: 10_800, maglev: 1021 };
            let (slot, backend) = (BackendSlot { set: 7, slot: 2 }, BackendAddress { ip, port: 8053 });
            let range = SourceRange { set: 7, cidr: IpCidr::host(ip) };
            for scope in [Scope::Inside, Scope::Outside, Scope::Local] {
                let key = FrontendKey { address, scope };
                let back = if ip.is_ipv4() {
                    round_trip::<Services<V4>>(&key, &value)
                } else {
                    round_trip::<Services<V6>>(&key, &value)
                };
                assert_eq!(back, (key, value));
            }
            if ip.is_ipv4() {
                assert_eq!(round_trip::<Backends<V4>>(&slot, &backend), (slot, backend));
                assert_eq!(round_trip::<Sources<V4>>(&range, &()), (range, ()));
            } else {
                assert_eq!(round_trip::<Backends<V6>>(&slot, &backend), (slot, backend));
                assert_eq!(round_trip::<Sources<V6>>(&range, &()), (range, ()));
            }
        }
    }

    #[test]
    fn each_flag_has_a_bit_of_its_own() {
        let flags =
            FrontendFlags { external: true, split: true, source_ranges: true, silent: true, node_port: true };
        assert_eq!(to_flags(flags).0.count_ones(), 5);
        assert_eq!(from_flags(to_flags(flags)), flags);
        assert_eq!(from_flags(to_flags(FrontendFlags::default())), FrontendFlags::default());
    }

    #[test]
    fn rows_of_one_family_are_refused_by_the_others_map() {
        assert!(Endpoints::<V4>::key(&"fd00::1".parse().unwrap()).is_none());
        assert!(Endpoints::<V6>::key(&"10.0.0.1".parse().unwrap()).is_none());
    }
}
