//! Services: frontends, the slots of their backends, who may use them, and what sockets were translated to.
//!
//! A *set* is one number per Service port, family and [`Scope`]: all frontends of that port (cluster, external and
//! load-balancer addresses, node ports) name the same set, and so share slots, Maglev table, source ranges and affinity.

use crate::{
    Plain,
    addr::{Addr, Be16, V4, V6},
    layout,
};

/// For whom a row of a frontend is.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Scope(pub u8);

// SAFETY: transparent over u8.
unsafe impl Plain for Scope {}

impl Scope {
    /// Clients in the cluster: pods, processes of nodes. Every frontend has this row.
    pub const INSIDE: Self = Self(0);
    /// Clients outside the cluster, where their backends differ (see [`ServiceFlags::SPLIT`]).
    pub const OUTSIDE: Self = Self(1);
    /// Backends of this node only: for clients outside the cluster whose packets another node sent here untranslated.
    pub const LOCAL: Self = Self(2);
}

/// A frontend: where clients connect.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ServiceKey<A> {
    /// Virtual address; the unspecified address for a node port, which answers on every address of a node whose ipcache
    /// row has [`crate::PeerFlags::NODE_PORT`].
    pub addr: A,
    /// Virtual port.
    pub port: Be16,
    /// IP protocol number.
    pub protocol: u8,
    /// For whom.
    pub scope: Scope,
}

// SAFETY: the fields fill the struct; sizes asserted below.
unsafe impl<A: Addr> Plain for ServiceKey<A> {}
const _: () = {
    assert!(size_of::<ServiceKey<V4>>() == 8);
    assert!(size_of::<ServiceKey<V6>>() == 20);
};

impl<A: Addr> ServiceKey<A> {
    /// A key.
    #[inline(always)]
    pub fn new(addr: A, port: Be16, protocol: u8, scope: Scope) -> Self {
        Self { addr, port, protocol, scope }
    }
}

/// What a frontend leads to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServiceValue {
    /// Number of the set, never zero.
    pub set: u32,
    /// Backends in slots `0..count`; zero refuses connections.
    pub count: u16,
    /// How the frontend is served.
    pub flags: ServiceFlags,
    /// Seconds for which a client stays with its backend; zero: no affinity.
    pub affinity: u32,
    /// Positions in the set's Maglev table; zero: outside clients are spread at random, too.
    pub maglev: u16,
    /// Always zero.
    pub pad: u16,
}

layout!(ServiceValue, size = 16, fields = [
    set: u32, count: u16, flags: ServiceFlags, affinity: u32, maglev: u16, pad: u16,
]);

/// How a frontend is served; combinable bits.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServiceFlags(pub u16);

// SAFETY: transparent over u16.
unsafe impl Plain for ServiceFlags {}

impl ServiceFlags {
    /// Clients outside the cluster may use it.
    pub const EXTERNAL: Self = Self(1);
    /// Clients outside the cluster use the row of [`Scope::OUTSIDE`] instead.
    pub const SPLIT: Self = Self(1 << 1);
    /// Clients outside the cluster must be in a source range of the set. On the row that they end up with.
    pub const SOURCE_RANGES: Self = Self(1 << 2);
    /// Without backends packets are dropped, not refused: other nodes have some.
    pub const SILENT: Self = Self(1 << 3);
    /// A node port: the key's address is unspecified.
    pub const NODE_PORT: Self = Self(1 << 4);

    /// Whether any of the given bits is set.
    #[inline(always)]
    pub const fn any(self, bits: Self) -> bool {
        self.0 & bits.0 != 0
    }

    /// Both sets.
    #[inline(always)]
    pub const fn with(self, bits: Self) -> Self {
        Self(self.0 | bits.0)
    }
}

/// A slot of a set.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct BackendKey {
    /// Number of the set.
    pub set: u32,
    /// Slot, from zero.
    pub slot: u32,
}

layout!(BackendKey, size = 8, fields = [set: u32, slot: u32]);

/// Where a slot leads.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BackendValue<A> {
    /// Address of the backend.
    pub addr: A,
    /// Port on that address.
    pub port: Be16,
    /// None in use yet: zero.
    pub flags: u16,
}

// SAFETY: the fields fill the struct; sizes asserted below.
unsafe impl<A: Addr> Plain for BackendValue<A> {}
const _: () = {
    assert!(size_of::<BackendValue<V4>>() == 8);
    assert!(size_of::<BackendValue<V6>>() == 20);
};

impl<A: Addr> BackendValue<A> {
    /// A value without flags.
    #[inline(always)]
    pub fn new(addr: A, port: Be16) -> Self {
        Self { addr, port, flags: 0 }
    }
}

/// Part of a set's Maglev table.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct MaglevKey {
    /// Number of the set.
    pub set: u32,
    /// Which part: position divided by [`MaglevChunk::SLOTS`].
    pub chunk: u32,
}

layout!(MaglevKey, size = 8, fields = [set: u32, chunk: u32]);

/// Slots of consecutive positions of a Maglev table; the last part is filled up with zeros.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MaglevChunk {
    /// Slot of each position.
    pub slots: [u16; 64],
}

layout!(MaglevChunk, size = 128, fields = [slots: [u16; 64]]);

impl MaglevChunk {
    /// Positions in a part.
    pub const SLOTS: u32 = 64;
}

impl MaglevKey {
    /// Where a position of a set's table is: the part, and the index in it.
    #[inline(always)]
    pub const fn of(set: u32, position: u32) -> (Self, u32) {
        (Self { set, chunk: position / MaglevChunk::SLOTS }, position % MaglevChunk::SLOTS)
    }
}

/// Key of the longest-prefix map of source ranges; its value is a `u32`, always one.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SourceKey<A> {
    /// 32 (the set counts in full) plus the prefix length, host order; lookups use the full width.
    pub bits: u32,
    /// Number of the set.
    pub set: u32,
    /// The address, network order.
    pub addr: A,
}

// SAFETY: integers and an address whose alignment is 4; sizes asserted below.
unsafe impl<A: Addr> Plain for SourceKey<A> {}
const _: () = {
    assert!(size_of::<SourceKey<V4>>() == 12);
    assert!(size_of::<SourceKey<V6>>() == 24);
};

impl<A: Addr> SourceKey<A> {
    /// Bits before those of the address.
    pub const SET_BITS: u32 = 32;

    /// The key that asks whether a client may use a set.
    #[inline(always)]
    pub fn host(set: u32, addr: A) -> Self {
        Self { bits: Self::SET_BITS + A::BITS, set, addr }
    }
}

/// Who stays with a backend.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct AffinityKey {
    /// See the constructors.
    pub client: [u32; 4],
    /// Number of the set.
    pub set: u32,
    /// What `client` is: [`AffinityKey::ADDRESS`] or [`AffinityKey::NETNS`].
    pub kind: u32,
}

layout!(AffinityKey, size = 24, fields = [client: [u32; 4], set: u32, kind: u32]);

impl AffinityKey {
    /// The client is an address: IPv4 in the first word, network order.
    pub const ADDRESS: u32 = 0;
    /// The client is everybody in a network namespace: its cookie, low word first.
    pub const NETNS: u32 = 1;

    /// A client known by its address.
    #[inline(always)]
    pub fn address<A: Addr>(set: u32, addr: A) -> Self {
        Self { client: addr.words(), set, kind: Self::ADDRESS }
    }

    /// A client known by its network namespace.
    #[inline(always)]
    pub const fn netns(set: u32, cookie: u64) -> Self {
        Self { client: [cookie as u32, (cookie >> 32) as u32, 0, 0], set, kind: Self::NETNS }
    }
}

/// With whom a client stays.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AffinityValue {
    /// Address of the backend as words in network order; IPv4 in the first.
    pub addr: [u32; 4],
    /// Port of the backend.
    pub port: Be16,
    /// Slot in which the backend was seen last: where to look first.
    pub slot: u16,
    /// Tick (see [`crate::TICK_SHIFT`]) of the last new connection.
    pub last_used: u32,
}

layout!(AffinityValue, size = 24, fields = [addr: [u32; 4], port: Be16, slot: u16, last_used: u32]);

/// Key of what the socket programs remember. With a backend's address it finds the frontend to show to the
/// application; with a frontend's it finds the backend that datagrams of this socket went to before.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SockKey<A> {
    /// Cookie of the socket, as two words so that no family needs padding.
    pub cookie: [u32; 2],
    /// Peer address.
    pub addr: A,
    /// Peer port.
    pub port: Be16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub pad: u8,
}

// SAFETY: the fields fill the struct; sizes asserted below.
unsafe impl<A: Addr> Plain for SockKey<A> {}
const _: () = {
    assert!(size_of::<SockKey<V4>>() == 16);
    assert!(size_of::<SockKey<V6>>() == 28);
};

impl<A: Addr> SockKey<A> {
    /// A key with its padding zeroed.
    #[inline(always)]
    pub fn new(cookie: u64, addr: A, port: Be16, protocol: u8) -> Self {
        Self { cookie: [cookie as u32, (cookie >> 32) as u32], addr, port, protocol, pad: 0 }
    }
}

/// Value of what the socket programs remember.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SockValue<A> {
    /// Address of the other side of the translation.
    pub addr: A,
    /// Port of the other side of the translation.
    pub port: Be16,
    /// Slot that was chosen.
    pub slot: u16,
    /// Number of the set.
    pub set: u32,
}

// SAFETY: the fields fill the struct; sizes asserted below.
unsafe impl<A: Addr> Plain for SockValue<A> {}
const _: () = {
    assert!(size_of::<SockValue<V4>>() == 12);
    assert!(size_of::<SockValue<V6>>() == 24);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_of_a_maglev_table_has_one_place() {
        let mut last = None;
        for position in 0..1021 {
            let (key, index) = MaglevKey::of(7, position);
            assert_eq!(key.chunk * MaglevChunk::SLOTS + index, position);
            assert!(last < Some((key, index)));
            last = Some((key, index));
        }
    }

    #[test]
    fn a_cookie_is_never_taken_for_an_address() {
        let addr = V4::new([1, 0, 0, 0]);
        assert_ne!(AffinityKey::address(1, addr), AffinityKey::netns(1, u64::from(addr.raw())));
    }
}
