//! The tables on real maps: rows become the bytes of `skep-abi` and back.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use skep_abi::{
    Plain,
    addr::{Be16, V4},
    ipcache::{IpcacheKey, PeerFlags},
    maps::{self, MapSpec},
    service::{BackendKey, BackendValue, ServiceFlags, ServiceKey, ServiceValue},
};
use skep_model::{FrontendAddress, IpCidr, MacAddr, Port, Protocol};

use crate::{
    rows::{BackendAddress, BackendSlot, Endpoint, Frontend, Peer, PeerKind},
    sys::RawMap,
    table::{MapTable, TableError},
};

/// How rows of one map are written.
pub(crate) trait Codec: Send + Sync + 'static {
    type Key: std::fmt::Debug + Send + Sync;
    type Value: std::fmt::Debug + Send + Sync;
    type RawKey: Plain;
    type RawValue: Plain;
    const SPEC: MapSpec;

    fn key(key: &Self::Key) -> Option<Self::RawKey>;
    fn value(value: &Self::Value) -> Option<Self::RawValue>;
    fn row(key: Self::RawKey, value: Self::RawValue) -> Option<(Self::Key, Self::Value)>;
}

/// A table on a pinned map.
pub(crate) struct KernelTable<C> {
    map: Arc<RawMap>,
    codec: std::marker::PhantomData<C>,
}

impl<C: Codec> KernelTable<C> {
    pub(crate) fn new(map: Arc<RawMap>) -> Self {
        Self { map, codec: std::marker::PhantomData }
    }

    fn family_error(row: &dyn std::fmt::Debug) -> TableError {
        TableError::Family { table: C::SPEC.name, row: format!("{row:?}") }
    }

    fn kernel_error(&self, source: io::Error) -> TableError {
        match source.raw_os_error() {
            Some(libc::E2BIG | libc::ENOSPC) => {
                TableError::Full { table: C::SPEC.name, capacity: self.map.facts().entries }
            }
            _ => TableError::Kernel { table: C::SPEC.name, source },
        }
    }
}

impl<C: Codec> MapTable<C::Key, C::Value> for KernelTable<C> {
    fn update(&self, key: &C::Key, value: &C::Value) -> Result<(), TableError> {
        let raw_key = C::key(key).ok_or_else(|| Self::family_error(key))?;
        let raw_value = C::value(value).ok_or_else(|| Self::family_error(value))?;
        self.map.update(&raw_key, &raw_value).map_err(|source| self.kernel_error(source))
    }

    fn delete(&self, key: &C::Key) -> Result<(), TableError> {
        let raw_key = C::key(key).ok_or_else(|| Self::family_error(key))?;
        self.map.delete(&raw_key).map_err(|source| self.kernel_error(source))
    }

    fn entries(&self) -> Result<Vec<(C::Key, C::Value)>, TableError> {
        let rows =
            self.map.entries::<C::RawKey, C::RawValue>().map_err(|source| self.kernel_error(source))?;
        Ok(rows.into_iter().filter_map(|(key, value)| C::row(key, value)).collect())
    }
}

pub(crate) fn to_v4(ip: IpAddr) -> Option<V4> {
    match ip {
        IpAddr::V4(ip) => Some(V4::new(ip.octets())),
        IpAddr::V6(_) => None,
    }
}

pub(crate) fn from_v4(addr: V4) -> Ipv4Addr {
    Ipv4Addr::from(addr.octets())
}

pub(crate) struct Endpoints4;

impl Codec for Endpoints4 {
    type Key = IpAddr;
    type Value = Endpoint;
    type RawKey = V4;
    type RawValue = skep_abi::Endpoint;
    const SPEC: MapSpec = maps::ENDPOINTS4;

    fn key(key: &IpAddr) -> Option<V4> {
        to_v4(*key)
    }

    fn value(value: &Endpoint) -> Option<skep_abi::Endpoint> {
        Some(skep_abi::Endpoint { ifindex: value.ifindex, mac: value.mac.0, host_mac: value.host_mac.0 })
    }

    fn row(key: V4, value: skep_abi::Endpoint) -> Option<(IpAddr, Endpoint)> {
        let endpoint =
            Endpoint { ifindex: value.ifindex, mac: MacAddr(value.mac), host_mac: MacAddr(value.host_mac) };
        Some((from_v4(key).into(), endpoint))
    }
}

pub(crate) struct Ipcache4;

impl Codec for Ipcache4 {
    type Key = IpCidr;
    type Value = Peer;
    type RawKey = IpcacheKey<V4>;
    type RawValue = skep_abi::Peer;
    const SPEC: MapSpec = maps::IPCACHE4;

    fn key(key: &IpCidr) -> Option<IpcacheKey<V4>> {
        Some(IpcacheKey { bits: u32::from(key.length()), addr: to_v4(key.network())? })
    }

    fn value(value: &Peer) -> Option<skep_abi::Peer> {
        let (node, flags) = match value.kind {
            PeerKind::Host => (Ipv4Addr::UNSPECIFIED, PeerFlags::HOST),
            PeerKind::LocalPods => (Ipv4Addr::UNSPECIFIED, PeerFlags::LOCAL_PODS),
            PeerKind::RemoteNode(node) => (node, PeerFlags::REMOTE_NODE),
            PeerKind::RemotePods(node) => (node, PeerFlags::REMOTE_PODS),
        };
        Some(skep_abi::Peer { node: V4::new(node.octets()), class: value.class, flags })
    }

    fn row(key: IpcacheKey<V4>, value: skep_abi::Peer) -> Option<(IpCidr, Peer)> {
        let cidr = IpCidr::new(from_v4(key.addr).into(), u8::try_from(key.bits).ok()?)?;
        let node = from_v4(value.node);
        let kind = match value.flags {
            PeerFlags::HOST => PeerKind::Host,
            PeerFlags::LOCAL_PODS => PeerKind::LocalPods,
            PeerFlags::REMOTE_NODE => PeerKind::RemoteNode(node),
            PeerFlags::REMOTE_PODS => PeerKind::RemotePods(node),
            _ => return None,
        };
        Some((cidr, Peer { kind, class: value.class }))
    }
}

pub(crate) struct Services4;

impl Codec for Services4 {
    type Key = FrontendAddress;
    type Value = Frontend;
    type RawKey = ServiceKey<V4>;
    type RawValue = ServiceValue;
    const SPEC: MapSpec = maps::SERVICES4;

    fn key(key: &FrontendAddress) -> Option<ServiceKey<V4>> {
        Some(ServiceKey::new(to_v4(key.ip)?, Be16::new(key.port.get()), key.protocol.number()))
    }

    fn value(value: &Frontend) -> Option<ServiceValue> {
        Some(ServiceValue { id: value.id, count: value.count, flags: ServiceFlags(0) })
    }

    fn row(key: ServiceKey<V4>, value: ServiceValue) -> Option<(FrontendAddress, Frontend)> {
        let address = FrontendAddress {
            ip: from_v4(key.addr).into(),
            port: Port::new(key.port.get())?,
            protocol: Protocol::from_number(key.protocol)?,
        };
        Some((address, Frontend { id: value.id, count: value.count }))
    }
}

pub(crate) struct Backends4;

impl Codec for Backends4 {
    type Key = BackendSlot;
    type Value = BackendAddress;
    type RawKey = BackendKey;
    type RawValue = BackendValue<V4>;
    const SPEC: MapSpec = maps::BACKENDS4;

    fn key(key: &BackendSlot) -> Option<BackendKey> {
        Some(BackendKey { service: key.frontend, slot: u32::from(key.slot) })
    }

    fn value(value: &BackendAddress) -> Option<BackendValue<V4>> {
        Some(BackendValue::new(to_v4(value.ip)?, Be16::new(value.port)))
    }

    fn row(key: BackendKey, value: BackendValue<V4>) -> Option<(BackendSlot, BackendAddress)> {
        let slot = BackendSlot { frontend: key.service, slot: u16::try_from(key.slot).ok()? };
        Some((slot, BackendAddress { ip: from_v4(value.addr).into(), port: value.port.get() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<C: Codec>(key: &C::Key, value: &C::Value) -> (C::Key, C::Value) {
        C::row(C::key(key).unwrap(), C::value(value).unwrap()).unwrap()
    }

    #[test]
    fn peers_of_every_kind_round_trip() {
        let node = Ipv4Addr::new(10, 89, 0, 12);
        let kinds =
            [PeerKind::Host, PeerKind::LocalPods, PeerKind::RemoteNode(node), PeerKind::RemotePods(node)];
        for kind in kinds {
            let key: IpCidr = "10.244.2.0/24".parse().unwrap();
            assert_eq!(round_trip::<Ipcache4>(&key, &Peer::new(kind)), (key, Peer::new(kind)));
        }
    }

    #[test]
    fn frontends_and_backends_round_trip() {
        let key = FrontendAddress {
            ip: [10, 96, 0, 10].into(),
            port: Port::new(53).unwrap(),
            protocol: Protocol::Udp,
        };
        let value = Frontend { id: 7, count: 3 };
        assert_eq!(round_trip::<Services4>(&key, &value), (key, value));
        let slot = BackendSlot { frontend: 7, slot: 2 };
        let backend = BackendAddress { ip: [10, 244, 0, 9].into(), port: 8053 };
        assert_eq!(round_trip::<Backends4>(&slot, &backend), (slot, backend));
    }

    #[test]
    fn ipv6_rows_are_refused_by_ipv4_maps() {
        assert!(Endpoints4::key(&"fd00::1".parse().unwrap()).is_none());
    }
}
