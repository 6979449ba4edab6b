//! The ipcache: what is known about an address that may be a peer, by longest prefix.

use crate::{
    Plain,
    addr::{Addr, V4, V6},
    layout,
};

/// Key of the longest-prefix map: the number of significant bits, then the address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IpcacheKey<A> {
    /// Prefix length in bits, host order; lookups use the full width.
    pub bits: u32,
    /// The address, network order.
    pub addr: A,
}

// SAFETY: a u32 and an address whose alignment is 4; sizes asserted below.
unsafe impl<A: Addr> Plain for IpcacheKey<A> {}
const _: () = {
    assert!(size_of::<IpcacheKey<V4>>() == 8);
    assert!(size_of::<IpcacheKey<V6>>() == 20);
};

impl<A: Addr> IpcacheKey<A> {
    /// The key that looks an address up.
    #[inline(always)]
    pub fn host(addr: A) -> Self {
        Self { bits: A::BITS, addr }
    }
}

/// What stands behind a prefix.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Peer {
    /// Underlay address of the node that owns the prefix (IPv4 as a mapped address): tunnel destination, and the only
    /// outer source from which its addresses are believed. Zero where no tunnel leads there.
    pub node: V6,
    /// Security identity: the class of the peer, see [`class`].
    pub class: u32,
    /// What kind of peer it is.
    pub flags: PeerFlags,
}

layout!(Peer, size = 24, fields = [node: V6, class: u32, flags: PeerFlags]);

/// Kinds of peer; combinable bits.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerFlags(pub u32);

// SAFETY: transparent over u32.
unsafe impl Plain for PeerFlags {}

impl PeerFlags {
    /// An address of this node itself (its underlay addresses, its gateway).
    pub const HOST: Self = Self(1);
    /// An address of another node.
    pub const REMOTE_NODE: Self = Self(1 << 1);
    /// Pods of another node.
    pub const REMOTE_PODS: Self = Self(1 << 2);
    /// Pods of this node: addresses without an endpoint do not exist.
    pub const LOCAL_PODS: Self = Self(1 << 3);
    /// Node ports answer on this address, of this node or of another.
    pub const NODE_PORT: Self = Self(1 << 4);

    /// Whether any of the given bits is set.
    #[inline(always)]
    pub const fn any(self, bits: Self) -> bool {
        self.0 & bits.0 != 0
    }

    /// Whether all of the given bits are set.
    #[inline(always)]
    pub const fn all(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }

    /// Both sets.
    #[inline(always)]
    pub const fn with(self, bits: Self) -> Self {
        Self(self.0 | bits.0)
    }
}

/// Reserved security identities; classes made from policy start at [`class::FIRST`].
pub mod class {
    /// Not known: an address inside the cluster's ranges that no node has announced.
    pub const UNKNOWN: u32 = 0;
    /// This node.
    pub const HOST: u32 = 1;
    /// Another node.
    pub const REMOTE_NODE: u32 = 2;
    /// Outside the cluster.
    pub const WORLD: u32 = 3;
    /// A pod that no policy tells apart.
    pub const POD: u32 = 4;
    /// First identity that policy may hand out.
    pub const FIRST: u32 = 16;
}
