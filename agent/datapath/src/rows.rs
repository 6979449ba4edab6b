//! Rows of the tables: what the daemon computes, in types; [`crate::kernel`] turns them into map bytes and back.
//!
//! Rows of both families go through one table; each lands in the map of its own family.

use std::net::IpAddr;

use skep_model::{FrontendAddress, IpCidr, MacAddr};

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

/// What stands behind a prefix. Key: [`skep_model::IpCidr`]. Every node keeps these rows, of each family it has:
/// its own addresses and gateway as [`PeerKind::Host`], its own pod range as [`PeerKind::LocalPods`], and of every
/// other node the pod range as [`PeerKind::RemotePods`] and the node addresses (gateway included) as
/// [`PeerKind::RemoteNode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What kind of peer.
    pub kind: PeerKind,
    /// Security identity (see [`skep_abi::ipcache::class`]).
    pub class: u32,
    /// Node ports answer on this address: set on addresses of nodes, own and remote, that the setting chooses; never on
    /// loopback, gateways or pods.
    pub node_port: bool,
}

/// Kinds of peer; remote ones carry the underlay address of their node (of either family, whatever the family of the
/// prefix): tunnel destination, and the only outer source from which packets of the prefix are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    /// An address of this node.
    Host,
    /// Pods of this node.
    LocalPods,
    /// An address of another node.
    RemoteNode(IpAddr),
    /// Pods of another node.
    RemotePods(IpAddr),
}

impl Peer {
    /// A peer with the class that its kind has without policy, without node ports.
    #[must_use]
    pub fn new(kind: PeerKind) -> Self {
        use skep_abi::ipcache::class;
        let class = match kind {
            PeerKind::Host => class::HOST,
            PeerKind::RemoteNode(_) => class::REMOTE_NODE,
            PeerKind::LocalPods | PeerKind::RemotePods(_) => class::POD,
        };
        Self { kind, class, node_port: false }
    }

    /// The same peer, with node ports on it or not.
    #[must_use]
    pub fn with_node_port(self, node_port: bool) -> Self {
        Self { node_port, ..self }
    }
}

/// For whom a row of the frontend table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Pods and processes of nodes, and outside clients where no other row is.
    #[default]
    Inside,
    /// Clients outside the cluster, where they are served by other backends (`SPLIT` on the inside row).
    Outside,
    /// Packets that another node has passed on untranslated (direct server return): backends of this node only.
    Local,
}

/// Key of a frontend. The unspecified address stands for "every address with node ports" ([`Peer::node_port`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    /// Where clients connect.
    pub address: FrontendAddress,
    /// Which clients.
    pub scope: Scope,
}

impl FrontendKey {
    /// The row for everybody inside.
    #[must_use]
    pub fn inside(address: FrontendAddress) -> Self {
        Self { address, scope: Scope::Inside }
    }
}

/// How a frontend is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrontendFlags {
    /// Clients outside the cluster may use it.
    pub external: bool,
    /// Clients outside the cluster use the row of [`Scope::Outside`] instead.
    pub split: bool,
    /// Clients outside the cluster must match a [`SourceRange`] of the row's set.
    pub source_ranges: bool,
    /// Without backends, packets are dropped in silence instead of refused.
    pub silent: bool,
    /// It is a node port.
    pub node_port: bool,
}

/// What a frontend leads to. Key: [`FrontendKey`].
///
/// Order of changes: when the number of backends grows, write the [`BackendSlot`]s first, then the Maglev chunks, then
/// the frontend; when it shrinks, the frontend and the chunks first. A new connection that falls between finds a slot
/// or picks again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frontend {
    /// Number of the set of backends, never zero. Several frontends of one Service port share a set.
    pub set: u32,
    /// Backends in slots `0..count`; zero refuses connections.
    pub count: u16,
    /// How it is served.
    pub flags: FrontendFlags,
    /// Seconds that a client stays with a backend after its last connection; zero for no affinity.
    pub affinity_seconds: u32,
    /// Size of the set's Maglev table; zero picks backends by chance.
    pub maglev: u16,
}

impl Frontend {
    /// A frontend that picks backends by chance, for inside clients.
    #[must_use]
    pub fn new(set: u32, count: u16) -> Self {
        Self { set, count, ..Self::default() }
    }
}

/// Key of a backend: a slot of a set. Sets are numbered per family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendSlot {
    /// Number of the set.
    pub set: u32,
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

/// Slots in a row of a Maglev table.
pub const MAGLEV_CHUNK: usize = 64;

/// Key of a part of a set's Maglev table: positions `chunk * 64 ..`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MaglevKey {
    /// Number of the set.
    pub set: u32,
    /// Number of the part, from zero.
    pub chunk: u32,
}

/// Part of a Maglev table: the slot of each position. Positions beyond the table's size are zero.
pub type MaglevChunk = [u16; MAGLEV_CHUNK];

/// Key of the source ranges: clients that a set with [`FrontendFlags::source_ranges`] admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceRange {
    /// Number of the set of the row that carries the flag.
    pub set: u32,
    /// Admitted clients.
    pub cidr: IpCidr,
}
