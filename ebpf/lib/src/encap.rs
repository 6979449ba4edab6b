//! VXLAN headers (RFC 7348) for programs that write them themselves: XDP has no tunnel device to send to.

use skep_abi::{Be16, V4, V6, layout};

use crate::{
    csum::fold,
    family::{Ipv4Header, Ipv6Header},
    frame::UDP,
};

/// UDP port of the tunnel.
pub const VXLAN_PORT: u16 = 8472;
const HOPS: u8 = 64;
/// The network identifier is there.
const VNI_VALID: u8 = 8;

/// A UDP header.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpHeader {
    /// Source port.
    pub src: Be16,
    /// Destination port.
    pub dst: Be16,
    /// Length with this header.
    pub length: Be16,
    /// Zero: none.
    pub checksum: Be16,
}

layout!(UdpHeader, size = 8, fields = [src: Be16, dst: Be16, length: Be16, checksum: Be16]);

/// A VXLAN header.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VxlanHeader {
    /// Flags and reserved bytes.
    pub flags: [u8; 4],
    /// Network identifier in the upper three bytes.
    pub vni: [u8; 4],
}

layout!(VxlanHeader, size = 8, fields = [flags: [u8; 4], vni: [u8; 4]]);

/// What lies between the outer Ethernet header and the inner one, over IPv4.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer4 {
    /// IPv4.
    pub ip: Ipv4Header,
    /// UDP.
    pub udp: UdpHeader,
    /// VXLAN.
    pub vxlan: VxlanHeader,
}

layout!(Outer4, size = 36, fields = [ip: Ipv4Header, udp: UdpHeader, vxlan: VxlanHeader]);

/// What lies between the outer Ethernet header and the inner one, over IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer6 {
    /// IPv6.
    pub ip: Ipv6Header,
    /// UDP; without a checksum, which tunnels may leave out (RFC 6935).
    pub udp: UdpHeader,
    /// VXLAN.
    pub vxlan: VxlanHeader,
}

layout!(Outer6, size = 56, fields = [ip: Ipv6Header, udp: UdpHeader, vxlan: VxlanHeader]);

/// What a tunnel packet is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Bytes of the inner packet with its Ethernet header.
    pub length: u16,
    /// A hash of the inner flow: makes the outer source port, which routers spread flows by.
    pub hash: u32,
    /// Network identifier.
    pub vni: u32,
}

impl Inner {
    #[inline(always)]
    fn udp(&self) -> UdpHeader {
        UdpHeader {
            src: Be16::new(0xc000 | (self.hash & 0x3fff) as u16),
            dst: Be16::new(VXLAN_PORT),
            length: Be16::new(self.length + 16),
            checksum: Be16::ZERO,
        }
    }

    #[inline(always)]
    fn vxlan(&self) -> VxlanHeader {
        VxlanHeader { flags: [VNI_VALID, 0, 0, 0], vni: (self.vni << 8).to_be_bytes() }
    }
}

/// Headers over IPv4.
#[inline(always)]
#[must_use]
pub fn over_v4(inner: &Inner, src: V4, dst: V4) -> Outer4 {
    let mut ip = Ipv4Header {
        version_ihl: 0x45,
        tos: 0,
        length: Be16::new(inner.length + 36),
        id: Be16::ZERO,
        fragment: Be16::ZERO,
        ttl: HOPS,
        protocol: UDP,
        checksum: Be16::ZERO,
        src,
        dst,
    };
    let (src, dst) = (u64::from(src.number()), u64::from(dst.number()));
    let fixed = 0x4500 + u64::from(HOPS) * 256 + u64::from(UDP);
    let addresses = (src >> 16) + (src & 0xffff) + (dst >> 16) + (dst & 0xffff);
    ip.checksum = Be16::new(!fold(fixed + u64::from(inner.length + 36) + addresses));
    Outer4 { ip, udp: inner.udp(), vxlan: inner.vxlan() }
}

/// Headers over IPv6.
#[inline(always)]
#[must_use]
pub fn over_v6(inner: &Inner, src: V6, dst: V6) -> Outer6 {
    let ip = Ipv6Header {
        version: [0x60, 0, 0, 0],
        length: Be16::new(inner.length + 16),
        next: UDP,
        hops: HOPS,
        src,
        dst,
    };
    Outer6 { ip, udp: inner.udp(), vxlan: inner.vxlan() }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::csum;

    #[test]
    fn headers_say_how_long_everything_is_and_the_checksum_is_right() {
        let inner = Inner { length: 1000, hash: 0xffff_ffff, vni: 2 };
        let outer = over_v4(&inner, V4::new([10, 89, 0, 11]), V4::new([10, 89, 0, 12]));
        // SAFETY: plain data without padding.
        let bytes: [u8; 20] = unsafe { core::mem::transmute(outer.ip) };
        assert_eq!(csum::fold(csum::sum(&bytes)), 0xffff);
        assert_eq!((outer.ip.length.get(), outer.udp.length.get()), (1036, 1016));
        assert_eq!(outer.vxlan.vni.to_vec(), Vec::from([0, 0, 2, 0]));
        assert!(outer.udp.src.get() >= 0xc000);
        let outer = over_v6(&inner, V6::new([1; 16]), V6::new([2; 16]));
        assert_eq!((outer.ip.length.get(), outer.udp.length.get()), (1016, 1016));
    }
}
