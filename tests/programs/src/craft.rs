//! Builds packets of both families and reads them back; reading verifies every checksum.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, ensure};
use skep_packet::csum::{checksum, fold, sum};

/// A link-layer address.
pub type Mac = [u8; 6];

/// What an IPv4 packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// TCP: source port, destination port, flags, payload.
    Tcp(u16, u16, u8, Vec<u8>),
    /// UDP: source port, destination port, payload.
    Udp(u16, u16, Vec<u8>),
    /// UDP whose checksum is left out.
    UdpNoChecksum(u16, u16, Vec<u8>),
    /// ICMP: type, code, the four bytes after the checksum, payload.
    Icmp(u8, u8, [u8; 4], Vec<u8>),
    /// Anything else: protocol number and bytes.
    Raw(u8, Vec<u8>),
}

/// FIN.
pub const FIN: u8 = 1;
/// SYN.
pub const SYN: u8 = 2;
/// RST.
pub const RST: u8 = 4;
/// ACK.
pub const ACK: u8 = 16;

/// An address family, as far as packets are concerned.
pub trait Ip: Copy + std::fmt::Debug + PartialEq + Eq {
    /// Ethernet type.
    const ETHERTYPE: u16;
    /// Protocol number of its ICMP.
    const ICMP: u8;

    /// The bytes of the address.
    fn bytes(self) -> Vec<u8>;

    /// The header of a packet, extension headers included, for L4 of this length.
    fn header(packet: &Crafted<Self>, protocol: u8, length: usize) -> Vec<u8>;

    /// Reads a header: the packet without L4, its protocol, and where L4 starts and ends.
    ///
    /// # Errors
    /// When it is no header of this family or its checksum is wrong.
    fn parse(ip: &[u8]) -> anyhow::Result<(Crafted<Self>, u8, usize, usize)>;
}

/// A packet over Ethernet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crafted<A = Ipv4Addr> {
    /// Link-layer destination.
    pub dst_mac: Mac,
    /// Link-layer source.
    pub src_mac: Mac,
    /// Source.
    pub src: A,
    /// Destination.
    pub dst: A,
    /// Identification field.
    pub id: u16,
    /// Fragment field as IPv4 has it: flags and offset in units of eight bytes.
    pub fragment: u16,
    /// IPv4: options; a multiple of four bytes. IPv6: a destination options header, whose first byte is filled in.
    pub options: Vec<u8>,
    /// What it carries.
    pub segment: Segment,
}

impl Ip for Ipv4Addr {
    const ETHERTYPE: u16 = 0x0800;
    const ICMP: u8 = 1;

    fn bytes(self) -> Vec<u8> {
        self.octets().to_vec()
    }

    fn header(packet: &Crafted<Self>, protocol: u8, length: usize) -> Vec<u8> {
        let header_length = 20 + packet.options.len();
        let length = u16::try_from(header_length + length).unwrap_or(u16::MAX);
        let mut header = vec![0x40 | (header_length / 4) as u8, 0];
        header.extend(length.to_be_bytes());
        header.extend(packet.id.to_be_bytes());
        header.extend(packet.fragment.to_be_bytes());
        header.extend([64, protocol, 0, 0]);
        header.extend(packet.src.octets());
        header.extend(packet.dst.octets());
        header.extend(&packet.options);
        let value = checksum(&header).to_be_bytes();
        header[10..12].copy_from_slice(&value);
        header
    }

    fn parse(ip: &[u8]) -> anyhow::Result<(Crafted<Self>, u8, usize, usize)> {
        let header_length = usize::from(ip[0] & 0xf) * 4;
        let header = ip.get(..header_length).context("short header")?;
        ensure!(fold(sum(header)) == 0xffff, "wrong IP header checksum: {header:02x?}");
        let length = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
        let nothing = Segment::Raw(0, Vec::new());
        let mut packet = Crafted::new([0; 6], [0; 6], address(12), address(16), nothing);
        packet.id = u16::from_be_bytes([ip[4], ip[5]]);
        packet.fragment = u16::from_be_bytes([ip[6], ip[7]]);
        packet.options = header[20..].to_vec();
        Ok((packet, ip[9], header_length, length))
    }
}

const DESTINATION_OPTIONS: u8 = 60;
const FRAGMENT: u8 = 44;

impl Ip for Ipv6Addr {
    const ETHERTYPE: u16 = 0x86dd;
    const ICMP: u8 = 58;

    fn bytes(self) -> Vec<u8> {
        self.octets().to_vec()
    }

    fn header(packet: &Crafted<Self>, protocol: u8, length: usize) -> Vec<u8> {
        let mut extensions = Vec::new();
        let mut next = protocol;
        if packet.fragment != 0 {
            let field = packet.fragment << 3 | packet.fragment >> 13 & 1;
            extensions = vec![next, 0];
            extensions.extend(field.to_be_bytes());
            extensions.extend(u32::from(packet.id).to_be_bytes());
            next = FRAGMENT;
        }
        if let Some((_, rest)) = packet.options.split_first() {
            let mut options = vec![next];
            options.extend(rest);
            options.extend(extensions);
            extensions = options;
            next = DESTINATION_OPTIONS;
        }
        let length = u16::try_from(extensions.len() + length).unwrap_or(u16::MAX);
        let mut header = vec![0x60, 0, 0, 0];
        header.extend(length.to_be_bytes());
        header.extend([next, 64]);
        header.extend(packet.src.octets());
        header.extend(packet.dst.octets());
        header.extend(extensions);
        header
    }

    fn parse(ip: &[u8]) -> anyhow::Result<(Crafted<Self>, u8, usize, usize)> {
        ensure!(ip.len() >= 40 && ip[0] >> 4 == 6, "not an IPv6 packet: {ip:02x?}");
        let address = |at: usize| -> anyhow::Result<Ipv6Addr> {
            Ok(Ipv6Addr::from(<[u8; 16]>::try_from(&ip[at..at + 16])?))
        };
        let nothing = Segment::Raw(0, Vec::new());
        let mut packet = Crafted::new([0; 6], [0; 6], address(8)?, address(24)?, nothing);
        let end = 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
        let (mut next, mut at) = (ip[6], 40);
        if next == DESTINATION_OPTIONS {
            let length = 8 + usize::from(ip[at + 1]) * 8;
            packet.options = ip[at..at + length].to_vec();
            packet.options[0] = 0;
            (next, at) = (ip[at], at + length);
        }
        if next == FRAGMENT {
            let field = u16::from_be_bytes([ip[at + 2], ip[at + 3]]);
            packet.fragment = field >> 3 | (field & 1) << 13;
            packet.id = u16::from_be_bytes([ip[at + 6], ip[at + 7]]);
            (next, at) = (ip[at], at + 8);
        }
        Ok((packet, next, at, end))
    }
}

impl<A: Ip> Crafted<A> {
    /// A packet without fragments and options.
    #[must_use]
    pub fn new(src_mac: Mac, dst_mac: Mac, src: A, dst: A, segment: Segment) -> Self {
        Self { dst_mac, src_mac, src, dst, id: 1, fragment: 0, options: Vec::new(), segment }
    }

    /// The bytes, checksums filled in.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut packet = self.dst_mac.to_vec();
        packet.extend(self.src_mac);
        packet.extend(A::ETHERTYPE.to_be_bytes());
        packet.extend(self.ip_bytes());
        packet
    }

    /// The bytes from the IP header on.
    #[must_use]
    pub fn ip_bytes(&self) -> Vec<u8> {
        let (protocol, l4) = self.l4_bytes();
        let mut header = A::header(self, protocol, l4.len());
        header.extend(l4);
        header
    }

    fn l4_bytes(&self) -> (u8, Vec<u8>) {
        match &self.segment {
            Segment::Tcp(from, to, flags, payload) => {
                let mut l4 = ports(*from, *to);
                l4.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, *flags, 0xff, 0xff, 0, 0, 0, 0]);
                l4.extend(payload);
                (6, self.with_checksum(6, l4, 16))
            }
            Segment::Udp(from, to, payload) | Segment::UdpNoChecksum(from, to, payload) => {
                let mut l4 = ports(*from, *to);
                l4.extend((8 + payload.len() as u16).to_be_bytes());
                l4.extend([0, 0]);
                l4.extend(payload);
                let bare = matches!(self.segment, Segment::UdpNoChecksum(..));
                (17, if bare { l4 } else { self.with_checksum(17, l4, 6) })
            }
            Segment::Icmp(kind, code, rest, payload) => {
                let mut l4 = vec![*kind, *code, 0, 0];
                l4.extend(rest);
                l4.extend(payload);
                (A::ICMP, self.with_checksum(A::ICMP, l4, 2))
            }
            Segment::Raw(protocol, bytes) => (*protocol, bytes.clone()),
        }
    }

    fn pseudo_sum(&self, protocol: u8, l4: &[u8]) -> u64 {
        if protocol == Ipv4Addr::ICMP {
            return sum(l4);
        }
        sum(&self.src.bytes()) + sum(&self.dst.bytes()) + u64::from(protocol) + l4.len() as u64 + sum(l4)
    }

    fn with_checksum(&self, protocol: u8, mut l4: Vec<u8>, at: usize) -> Vec<u8> {
        let value = (!fold(self.pseudo_sum(protocol, &l4))).to_be_bytes();
        l4[at..at + 2].copy_from_slice(&value);
        l4
    }

    /// Reads a packet and verifies its checksums.
    ///
    /// # Errors
    /// When it is no packet of the family or a checksum is wrong.
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let is_ours = bytes.len() >= 34 && bytes[12..14] == A::ETHERTYPE.to_be_bytes();
        ensure!(is_ours, "not a packet of the family: {bytes:02x?}");
        let mut packet = Self::parse_ip(&bytes[14..])?;
        packet.dst_mac.copy_from_slice(&bytes[..6]);
        packet.src_mac.copy_from_slice(&bytes[6..12]);
        Ok(packet)
    }

    /// Reads a packet from its IP header on.
    ///
    /// # Errors
    /// When it is no packet of the family or a checksum is wrong.
    pub fn parse_ip(ip: &[u8]) -> anyhow::Result<Self> {
        let (mut packet, protocol, start, end) = A::parse(ip)?;
        let l4 = ip.get(start..end).context("short packet")?;
        let whole = packet.fragment & 0x3fff == 0;
        packet.segment =
            if whole { packet.parse_l4(protocol, l4)? } else { Segment::Raw(protocol, l4.to_vec()) };
        Ok(packet)
    }

    fn parse_l4(&self, protocol: u8, l4: &[u8]) -> anyhow::Result<Segment> {
        let port = |at: usize| u16::from_be_bytes([l4[at], l4[at + 1]]);
        let verified = |l4: &[u8]| fold(self.pseudo_sum(protocol, l4)) == 0xffff;
        match protocol {
            6 => {
                ensure!(verified(l4), "wrong TCP checksum: {l4:02x?}");
                Ok(Segment::Tcp(port(0), port(2), l4[13], l4[20..].to_vec()))
            }
            17 if port(6) == 0 => Ok(Segment::UdpNoChecksum(port(0), port(2), l4[8..].to_vec())),
            17 => {
                ensure!(verified(l4), "wrong UDP checksum: {l4:02x?}");
                Ok(Segment::Udp(port(0), port(2), l4[8..].to_vec()))
            }
            icmp if icmp == A::ICMP => {
                ensure!(verified(l4), "wrong ICMP checksum: {l4:02x?}");
                Ok(Segment::Icmp(l4[0], l4[1], [l4[4], l4[5], l4[6], l4[7]], l4[8..].to_vec()))
            }
            _ => Ok(Segment::Raw(protocol, l4.to_vec())),
        }
    }
}

fn ports(from: u16, to: u16) -> Vec<u8> {
    [from.to_be_bytes(), to.to_be_bytes()].concat()
}

/// An ARP packet.
#[must_use]
pub fn arp(operation: u16, src_mac: Mac, sender: Ipv4Addr, target_mac: Mac, target: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0xff; 6];
    packet.extend(src_mac);
    packet.extend([8, 6, 0, 1, 8, 0, 6, 4]);
    packet.extend(operation.to_be_bytes());
    packet.extend(src_mac);
    packet.extend(sender.octets());
    packet.extend(target_mac);
    packet.extend(target.octets());
    packet
}

/// A neighbour discovery message (RFC 4861) of a type about a target, with a link-layer address option; hop limit 255,
/// checksum filled in.
#[must_use]
pub fn neighbour(src_mac: Mac, kind: u8, src: Ipv6Addr, dst: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let mut payload = target.octets().to_vec();
    payload.extend([1, 1]);
    payload.extend(src_mac);
    let segment = Segment::Icmp(kind, 0, [0; 4], payload);
    let mut bytes = Crafted::new(src_mac, [0x33, 0x33, 0, 0, 0, 1], src, dst, segment).bytes();
    bytes[14 + 7] = 255;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_reads_back_and_a_flipped_bit_is_noticed() {
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        for segment in [
            Segment::Tcp(1, 2, SYN, b"hello".to_vec()),
            Segment::Udp(3, 4, b"odd".to_vec()),
            Segment::Icmp(8, 0, [0, 7, 0, 1], b"ping".to_vec()),
        ] {
            let packet = Crafted::new([1; 6], [2; 6], a, b, segment);
            let mut bytes = packet.bytes();
            assert_eq!(Crafted::parse(&bytes).unwrap(), packet);
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            assert!(Crafted::<Ipv4Addr>::parse(&bytes).is_err());
        }
    }

    #[test]
    fn ipv6_reads_back_with_options_and_as_a_fragment() {
        let (a, b): (Ipv6Addr, Ipv6Addr) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        let mut packet = Crafted::new([1; 6], [2; 6], a, b, Segment::Udp(3, 4, b"odd".to_vec()));
        packet.options = vec![0, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(Crafted::parse(&packet.bytes()).unwrap(), packet);
        let mut bytes = packet.bytes();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert!(Crafted::<Ipv6Addr>::parse(&bytes).is_err());
        packet.segment = Segment::Raw(17, vec![7; 16]);
        (packet.id, packet.fragment) = (9, 0x2002);
        assert_eq!(Crafted::parse(&packet.bytes()).unwrap(), packet);
    }
}
