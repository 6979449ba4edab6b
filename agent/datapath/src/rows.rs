//! Rows of the tables: what the daemon computes, in types; [`crate::kernel`] turns them into map bytes and back.

use std::net::{IpAddr, Ipv4Addr};

use skep_model::{FrontendAddress, MacAddr};

/// A pod attached to this node. Key: its address ([`IpAddr`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Interface index of the host side of its veth pair.
    pub ifindex: u32,
    /// Link-layer address of the pod's side.
    pub mac: MacAddr,
    /// Link-layer address of the host side.
    pub host_mac: MacAddr,
}

/// What stands behind a prefix. Key: [`skep_model::IpCidr`]. Every node keeps these rows:
/// its own addresses and gateway as [`PeerKind::Host`], its own pod range as [`PeerKind::LocalPods`], and of every
/// other node the pod range as [`PeerKind::RemotePods`] and the node addresses (gateway included) as
/// [`PeerKind::RemoteNode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What kind of peer.
    pub kind: PeerKind,
    /// Security identity (see [`skep_abi::ipcache::class`]).
    pub class: u32,
}

/// Kinds of peer; remote ones carry the underlay address of their node: tunnel destination, and the only outer source
/// from which packets of the prefix are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    /// An address of this node.
    Host,
    /// Pods of this node.
    LocalPods,
    /// An address of another node.
    RemoteNode(Ipv4Addr),
    /// Pods of another node.
    RemotePods(Ipv4Addr),
}

impl Peer {
    /// A peer with the class that its kind has without policy.
    #[must_use]
    pub fn new(kind: PeerKind) -> Self {
        use skep_abi::ipcache::class;
        let class = match kind {
            PeerKind::Host => class::HOST,
            PeerKind::RemoteNode(_) => class::REMOTE_NODE,
            PeerKind::LocalPods | PeerKind::RemotePods(_) => class::POD,
        };
        Self { kind, class }
    }
}

/// What a frontend leads to. Key: [`FrontendAddress`].
///
/// Order of changes: when the number of backends grows, write the [`BackendSlot`]s first; when it shrinks, the frontend
/// first. A new connection that falls between finds a slot or picks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// Stable number, never zero.
    pub id: u32,
    /// Backends in slots `0..count`; zero refuses connections.
    pub count: u16,
}

/// Key of a backend: slot of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendSlot {
    /// Number of the frontend.
    pub frontend: u32,
    /// Slot, from zero.
    pub slot: u16,
}

/// Where a slot leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendAddress {
    /// Address of the backend.
    pub ip: IpAddr,
    /// Port on that address.
    pub port: u16,
}

/// Key of the frontend table.
pub type FrontendKey = FrontendAddress;
