//! Addresses and ports as they lie in packets and map keys: network byte order, carried by the type.

use crate::Plain;

/// A 16-bit integer in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Be16(u16);

// SAFETY: transparent over u16.
unsafe impl Plain for Be16 {}

impl Be16 {
    /// Zero in any order.
    pub const ZERO: Self = Self(0);

    /// Converts from host order.
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// Converts to host order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    /// Wraps bytes that are already in network order.
    #[inline(always)]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }

    /// The bytes in network order, as the native integer they form in memory.
    #[inline(always)]
    pub const fn raw(self) -> u16 {
        self.0
    }
}

/// A link-layer address.
pub type Mac = [u8; 6];

/// An IPv4 address, network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct V4(u32);

/// An IPv6 address, network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct V6([u32; 4]);

// SAFETY: transparent over integers.
unsafe impl Plain for V4 {}
// SAFETY: transparent over an array of integers.
unsafe impl Plain for V6 {}

impl V4 {
    /// From the four bytes in reading order.
    #[inline(always)]
    pub const fn new(octets: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(octets))
    }

    /// The four bytes in reading order.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }

    /// Wraps an integer whose memory holds the address in network order.
    #[inline(always)]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The integer whose memory holds the address in network order.
    #[inline(always)]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The address as a number, most significant octet first.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        u32::from_be(self.0)
    }
}

impl V6 {
    /// From the sixteen bytes in reading order.
    #[inline(always)]
    pub const fn new(octets: [u8; 16]) -> Self {
        // SAFETY: both types are 16 bytes of plain data.
        Self(unsafe { core::mem::transmute::<[u8; 16], [u32; 4]>(octets) })
    }

    /// The sixteen bytes in reading order.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 16] {
        // SAFETY: both types are 16 bytes of plain data.
        unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(self.0) }
    }

    /// Wraps words whose memory holds the address in network order.
    #[inline(always)]
    pub const fn from_raw(raw: [u32; 4]) -> Self {
        Self(raw)
    }

    /// The words whose memory holds the address in network order.
    #[inline(always)]
    pub const fn raw(self) -> [u32; 4] {
        self.0
    }

    /// The IPv4 address inside `::ffff:a.b.c.d`.
    #[inline(always)]
    pub const fn mapped(self) -> Option<V4> {
        if self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0xffff_u32.to_be() {
            Some(V4(self.0[3]))
        } else {
            None
        }
    }

    /// `::ffff:a.b.c.d` of an IPv4 address.
    #[inline(always)]
    pub const fn from_mapped(v4: V4) -> Self {
        Self([0, 0, 0xffff_u32.to_be(), v4.0])
    }
}

/// An address of either family.
pub trait Addr: Plain + PartialEq + Eq + Ord + core::fmt::Debug + core::hash::Hash + Default {
    /// The address family's number (`AF_INET`, `AF_INET6`).
    const FAMILY: u8;
    /// The width in bits.
    const BITS: u32;

    /// The address as 32-bit words in network order; IPv4 fills the first.
    fn words(self) -> [u32; 4];

    /// Loopback, in any of its spellings.
    fn is_loopback(self) -> bool;

    /// Multicast or broadcast: no unicast peer has it.
    fn is_group(self) -> bool;

    /// What an IPv6 host speaks from before, and beside, its own address: unspecified or link-local. Never IPv4.
    fn is_link_scoped(self) -> bool;
}

impl Addr for V4 {
    const FAMILY: u8 = 2;
    const BITS: u32 = 32;

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        [self.0, 0, 0, 0]
    }

    #[inline(always)]
    fn is_loopback(self) -> bool {
        self.number() >> 24 == 127
    }

    #[inline(always)]
    fn is_group(self) -> bool {
        self.number() >> 28 == 0xe || self.0 == u32::MAX
    }

    #[inline(always)]
    fn is_link_scoped(self) -> bool {
        false
    }
}

impl Addr for V6 {
    const FAMILY: u8 = 10;
    const BITS: u32 = 128;

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        self.0
    }

    #[inline(always)]
    fn is_loopback(self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0 && self.0[3] == 1_u32.to_be()
    }

    #[inline(always)]
    fn is_group(self) -> bool {
        u32::from_be(self.0[0]) >> 24 == 0xff
    }

    #[inline(always)]
    fn is_link_scoped(self) -> bool {
        let unspecified = self.0[0] | self.0[1] | self.0[2] | self.0[3] == 0;
        unspecified || u32::from_be(self.0[0]) >> 22 == 0xfe80 >> 6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_network_order_in_memory() {
        assert_eq!(V4::new([10, 96, 0, 1]).raw().to_ne_bytes(), [10, 96, 0, 1]);
        assert_eq!(V4::new([10, 96, 0, 1]).number(), 0x0a60_0001);
        assert_eq!(Be16::new(0x1234).raw().to_ne_bytes(), [0x12, 0x34]);
    }

    #[test]
    fn mapped_addresses_round_trip() {
        let v4 = V4::new([192, 0, 2, 7]);
        assert_eq!(V6::from_mapped(v4).mapped(), Some(v4));
        assert_eq!(V6::new([0xfd; 16]).mapped(), None);
    }

    #[test]
    fn groups_and_loopback_are_recognised_in_both_families() {
        assert!(V4::new([127, 9, 9, 9]).is_loopback());
        assert!(V4::new([224, 0, 0, 1]).is_group());
        assert!(V4::new([255; 4]).is_group());
        assert!(!V4::new([10, 0, 0, 1]).is_group());
        let mut loopback = [0; 16];
        loopback[15] = 1;
        assert!(V6::new(loopback).is_loopback());
        assert!(V6::new([0xff; 16]).is_group());
    }
}
