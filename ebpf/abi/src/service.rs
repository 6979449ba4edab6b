//! Services: frontends, the slots of their backends, and what sockets were translated to.

use crate::{
    Plain,
    addr::{Addr, Be16, V4, V6},
    layout,
};

/// A frontend: where clients connect.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct ServiceKey<A> {
    /// Virtual address.
    pub addr: A,
    /// Virtual port.
    pub port: Be16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub pad: u8,
}

// SAFETY: the fields fill the struct; sizes asserted below.
unsafe impl<A: Addr> Plain for ServiceKey<A> {}
const _: () = {
    assert!(size_of::<ServiceKey<V4>>() == 8);
    assert!(size_of::<ServiceKey<V6>>() == 20);
};

impl<A: Addr> ServiceKey<A> {
    /// A key with its padding zeroed.
    #[inline(always)]
    pub fn new(addr: A, port: Be16, protocol: u8) -> Self {
        Self { addr, port, protocol, pad: 0 }
    }
}

/// What a frontend leads to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServiceValue {
    /// Stable number of the frontend, never zero.
    pub id: u32,
    /// Backends in slots `0..count`; zero refuses connections.
    pub count: u16,
    /// How the frontend is served.
    pub flags: ServiceFlags,
}

layout!(ServiceValue, size = 8, fields = [id: u32, count: u16, flags: ServiceFlags]);

/// How a frontend is served; combinable bits, none in use yet.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServiceFlags(pub u16);

// SAFETY: transparent over u16.
unsafe impl Plain for ServiceFlags {}

/// A slot of a frontend.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct BackendKey {
    /// Number of the frontend.
    pub service: u32,
    /// Slot, from zero.
    pub slot: u32,
}

layout!(BackendKey, size = 8, fields = [service: u32, slot: u32]);

/// Where a slot leads.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BackendValue<A> {
    /// Address of the backend.
    pub addr: A,
    /// Port on that address.
    pub port: Be16,
    /// Always zero.
    pub pad: u16,
}

// SAFETY: the fields fill the struct; sizes asserted below.
unsafe impl<A: Addr> Plain for BackendValue<A> {}
const _: () = {
    assert!(size_of::<BackendValue<V4>>() == 8);
    assert!(size_of::<BackendValue<V6>>() == 20);
};

impl<A: Addr> BackendValue<A> {
    /// A value with its padding zeroed.
    #[inline(always)]
    pub fn new(addr: A, port: Be16) -> Self {
        Self { addr, port, pad: 0 }
    }
}

/// Key of what the socket programs remember. With a backend's address it finds the frontend to show to the
/// application; with a frontend's it finds the backend that datagrams of this socket went to before.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
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
    /// Number of the frontend.
    pub service: u32,
}

// SAFETY: the fields fill the struct; sizes asserted below.
unsafe impl<A: Addr> Plain for SockValue<A> {}
const _: () = {
    assert!(size_of::<SockValue<V4>>() == 12);
    assert!(size_of::<SockValue<V6>>() == 24);
};
