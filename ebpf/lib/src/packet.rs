//! The seam to a packet's bytes.

use skep_abi::{Be16, Mac, Plain, layout};

/// A change that an L4 checksum has to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumFix {
    /// Offset of the checksum.
    pub at: u32,
    /// What the bytes were, network order.
    pub from: u32,
    /// What they are now, network order.
    pub to: u32,
    /// How many bytes changed: 2 or 4.
    pub size: u32,
    /// The bytes belong to the pseudo header, not to what is checksummed itself.
    pub pseudo: bool,
    /// UDP: zero means "no checksum" and stays, and a result of zero is written as all ones.
    pub udp: bool,
}

/// A packet that starts with its Ethernet header. Offsets are in bytes from there; `None` means "beyond the end".
pub trait Packet {
    /// Length in bytes.
    fn length(&self) -> u32;

    /// Reads plain data.
    fn read<T: Plain>(&self, at: u32) -> Option<T>;

    /// Overwrites plain data.
    fn write<T: Plain>(&mut self, at: u32, value: T) -> Option<()>;

    /// Lets the IPv4 header checksum at an offset follow a change of four bytes.
    fn fix_l3(&mut self, at: u32, from: u32, to: u32) -> Option<()>;

    /// Lets an L4 checksum follow a change. Right for packets whose checksum is left to the device, too.
    fn fix_l4(&mut self, fix: ChecksumFix) -> Option<()>;
}

/// Length of an Ethernet header; IP starts here.
pub const ETH_LEN: u32 = 14;
/// IPv4 over Ethernet.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// IPv6 over Ethernet.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// ARP over Ethernet.
pub const ETHERTYPE_ARP: u16 = 0x0806;

/// An Ethernet header.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EthHeader {
    /// Destination.
    pub dst: Mac,
    /// Source.
    pub src: Mac,
    /// What follows.
    pub ethertype: Be16,
}

layout!(EthHeader, size = 14, fields = [dst: Mac, src: Mac, ethertype: Be16]);

/// Writes both link-layer addresses.
#[inline(always)]
pub fn set_macs<P: Packet>(packet: &mut P, dst: Mac, src: Mac) -> Option<()> {
    let header: EthHeader = packet.read(0)?;
    packet.write(0, EthHeader { dst, src, ethertype: header.ethertype })
}
