//! Frames of address resolution: ARP (RFC 826, RFC 5227) and IPv6 neighbour discovery (RFC 4861). Pure.
//!
//! Only what an announcer needs: questions for an address and claims of one are read, answers and claims are written.
//! Ethernet headers carry no VLAN tag here: the kernel has taken it out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use skep_model::MacAddr;

const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const BROADCAST: MacAddr = MacAddr([0xff; 6]);
/// Hardware type Ethernet, protocol type IPv4, and the lengths of both addresses.
const ARP_ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];
const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Neighbour discovery is refused with any other: it proves that no router forwarded the packet.
const HOP_LIMIT: u8 = 255;
const SOURCE_LINK_OPTION: u8 = 1;
const TARGET_LINK_OPTION: u8 = 2;
/// The flags of an advertisement: it was asked for; it replaces what the neighbour has.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What a frame says about addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Somebody asks who has an address.
    pub(crate) question: Option<Question>,
    /// Somebody says that an address is at this link-layer address.
    pub(crate) claim: Option<(IpAddr, MacAddr)>,
}

/// Who asks for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// The address in question.
    pub(crate) target: IpAddr,
    /// The asker's address; unspecified while it has none.
    pub(crate) asker: IpAddr,
    /// Where the answer goes.
    pub(crate) mac: MacAddr,
}

/// Reads a frame; `None` when it is neither ARP nor neighbour discovery, or malformed.
pub(crate) fn read(frame: &[u8]) -> Option<Heard> {
    let source = mac(frame.get(6..12)?)?;
    let payload = frame.get(14..)?;
    match frame.get(12..14)?.try_into().ok()? {
        ETHERTYPE_ARP => read_arp(payload),
        ETHERTYPE_IPV6 => read_discovery(payload, source),
        _ => None,
    }
}

fn read_arp(arp: &[u8]) -> Option<Heard> {
    if arp.get(..6)? != ARP_ETHERNET_IPV4 || arp.get(6)? != &0 {
        return None;
    }
    let sender_mac = mac(arp.get(8..14)?)?;
    let sender = ipv4(arp.get(14..18)?)?;
    let target = ipv4(arp.get(24..28)?)?;
    // Whoever sends as an address claims it, whatever the packet is for.
    let claim = (!sender.is_unspecified()).then_some((IpAddr::V4(sender), sender_mac));
    let question = Question { target: target.into(), asker: sender.into(), mac: sender_mac };
    match *arp.get(7)? {
        ARP_REQUEST => Some(Heard { question: (sender != target).then_some(question), claim }),
        ARP_REPLY => Some(Heard { question: None, claim }),
        _ => None,
    }
}

fn read_discovery(packet: &[u8], link_source: MacAddr) -> Option<Heard> {
    let length = usize::from(u16::from_be_bytes(packet.get(4..6)?.try_into().ok()?));
    let header = packet.get(..40)?;
    let message = packet.get(40..40 + length)?;
    let (source, destination) = (ipv6(&header[8..24])?, ipv6(&header[24..40])?);
    let valid = header[0] >> 4 == 6 && header[6] == ICMPV6 && header[7] == HOP_LIMIT && message.len() >= 24;
    if !valid || message[1] != 0 || checksum(source, destination, message) != 0 {
        return None;
    }
    let target = IpAddr::V6(ipv6(&message[8..24])?);
    match message[0] {
        SOLICITATION => {
            let mac = link_option(&message[24..], SOURCE_LINK_OPTION).unwrap_or(link_source);
            let question = Some(Question { target, asker: source.into(), mac });
            Some(Heard { question, claim: None })
        }
        ADVERTISEMENT => {
            let mac = link_option(&message[24..], TARGET_LINK_OPTION).unwrap_or(link_source);
            Some(Heard { question: None, claim: Some((target, mac)) })
        }
        _ => None,
    }
}

/// The link-layer address in the first option of this type.
fn link_option(mut options: &[u8], wanted: u8) -> Option<MacAddr> {
    while let [kind, units, ..] = *options {
        let length = usize::from(units) * 8;
        if length == 0 || length > options.len() {
            return None;
        }
        if kind == wanted {
            return mac(&options[2..8]);
        }
        options = &options[length..];
    }
    None
}

/// The answer to a question, from the device with this link-layer address.
pub(crate) fn answer(question: &Question, own: MacAddr) -> Option<Vec<u8>> {
    match (question.target, question.asker) {
        (IpAddr::V4(target), IpAddr::V4(asker)) => {
            Some(arp(ARP_REPLY, (own, target), (question.mac, asker), question.mac))
        }
        (IpAddr::V6(target), IpAddr::V6(asker)) if asker.is_unspecified() => {
            Some(advertisement(own, target, (multicast_mac(ALL_NODES), ALL_NODES), OVERRIDE))
        }
        (IpAddr::V6(target), IpAddr::V6(asker)) => {
            Some(advertisement(own, target, (question.mac, asker), SOLICITED | OVERRIDE))
        }
        _ => None,
    }
}

/// The frames that tell everybody on the link that the address is here now. Some systems learn from gratuitous ARP
/// requests only, some from replies only.
pub(crate) fn claims(address: IpAddr, own: MacAddr) -> Vec<Vec<u8>> {
    match address {
        IpAddr::V4(ip) => [ARP_REQUEST, ARP_REPLY]
            .map(|operation| {
                let target = if operation == ARP_REPLY { BROADCAST } else { MacAddr::default() };
                arp(operation, (own, ip), (target, ip), BROADCAST)
            })
            .into(),
        IpAddr::V6(ip) => vec![advertisement(own, ip, (multicast_mac(ALL_NODES), ALL_NODES), OVERRIDE)],
    }
}

/// The group in which questions for an address are asked.
pub(crate) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

fn arp(operation: u8, sender: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr), to: MacAddr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend(to.0);
    frame.extend(sender.0.0);
    frame.extend(ETHERTYPE_ARP);
    frame.extend(ARP_ETHERNET_IPV4);
    frame.extend([0, operation]);
    for (mac, ip) in [sender, target] {
        frame.extend(mac.0);
        frame.extend(ip.octets());
    }
    frame
}

fn advertisement(own: MacAddr, target: Ipv6Addr, to: (MacAddr, Ipv6Addr), flags: u8) -> Vec<u8> {
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    message.extend([TARGET_LINK_OPTION, 1]);
    message.extend(own.0);
    let sum = checksum(target, to.1, &message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    let mut frame = Vec::with_capacity(14 + 40 + message.len());
    frame.extend(to.0.0);
    frame.extend(own.0);
    frame.extend(ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0, 0, 32, ICMPV6, HOP_LIMIT]);
    frame.extend(target.octets());
    frame.extend(to.1.octets());
    frame.extend(message);
    frame
}

fn multicast_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

/// The checksum over pseudo header and message; zero for a message that holds its own.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        let pair = |chunk: &[u8]| u32::from(chunk[0]) << 8 | chunk.get(1).map_or(0, |low| u32::from(*low));
        bytes.chunks(2).map(pair).sum()
    };
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut sum = words(&source.octets()) + words(&destination.octets()) + words(message);
    sum += length + u32::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

fn mac(bytes: &[u8]) -> Option<MacAddr> {
    bytes.try_into().ok().map(MacAddr)
}

fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

fn ipv6(bytes: &[u8]) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const ASKER: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    fn arp_question(target: [u8; 4], asker: [u8; 4]) -> Vec<u8> {
        arp(ARP_REQUEST, (ASKER, asker.into()), (MacAddr::default(), target.into()), BROADCAST)
    }

    fn solicitation(target: Ipv6Addr, asker: Ipv6Addr) -> Vec<u8> {
        let group = solicited_node(target);
        let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        message.extend(target.octets());
        message.extend([SOURCE_LINK_OPTION, 1]);
        message.extend(ASKER.0);
        let sum = checksum(asker, group, &message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        let mut frame = [&multicast_mac(group).0[..], &ASKER.0, &ETHERTYPE_IPV6].concat();
        frame.extend([0x60, 0, 0, 0, 0, 32, ICMPV6, HOP_LIMIT]);
        frame.extend(asker.octets());
        frame.extend(group.octets());
        frame.extend(message);
        frame
    }

    #[test]
    fn an_arp_question_is_answered_to_the_asker_alone() {
        let heard = read(&arp_question([10, 0, 0, 1], [10, 0, 0, 9])).unwrap();
        let question = heard.question.unwrap();
        assert_eq!(question.target, IpAddr::from([10, 0, 0, 1]));
        let reply = answer(&question, OWN).unwrap();
        assert_eq!((&reply[..6], &reply[6..12]), (&ASKER.0[..], &OWN.0[..]));
        assert_eq!(read(&reply).unwrap().claim, Some((IpAddr::from([10, 0, 0, 1]), OWN)));
        assert_eq!((reply.len(), &reply[38..42]), (42, &[10, 0, 0, 9][..]));
    }

    #[test]
    fn gratuitous_arp_is_a_claim_and_no_question() {
        for frame in claims([10, 0, 0, 1].into(), OWN) {
            assert_eq!(&frame[..6], &BROADCAST.0);
            let heard = read(&frame).unwrap();
            assert_eq!((heard.question, heard.claim), (None, Some((IpAddr::from([10, 0, 0, 1]), OWN))));
        }
        // A probe asks without claiming.
        let probe = read(&arp_question([10, 0, 0, 1], [0, 0, 0, 0])).unwrap();
        assert!(probe.claim.is_none() && probe.question.is_some());
    }

    #[test]
    fn a_neighbour_solicitation_is_answered_with_a_valid_advertisement() {
        let target: Ipv6Addr = "fd00::5:6789".parse().unwrap();
        assert_eq!(solicited_node(target).to_string(), "ff02::1:ff05:6789");
        let question = read(&solicitation(target, "fd00::9".parse().unwrap())).unwrap().question.unwrap();
        assert_eq!((question.target, question.mac), (IpAddr::V6(target), ASKER));
        let reply = answer(&question, OWN).unwrap();
        assert_eq!((&reply[..6], reply[58]), (&ASKER.0[..], SOLICITED | OVERRIDE));
        assert_eq!(read(&reply).unwrap().claim, Some((IpAddr::V6(target), OWN)));
    }

    #[test]
    fn an_asker_without_address_is_answered_in_public() {
        let target: Ipv6Addr = "fd00::5".parse().unwrap();
        let question = read(&solicitation(target, Ipv6Addr::UNSPECIFIED)).unwrap().question.unwrap();
        let reply = answer(&question, OWN).unwrap();
        assert_eq!((&reply[..6], reply[58]), (&[0x33, 0x33, 0, 0, 0, 1][..], OVERRIDE));
    }

    #[test]
    fn what_a_router_forwarded_or_somebody_garbled_is_not_believed() {
        let mut frame = solicitation("fd00::5".parse().unwrap(), "fd00::9".parse().unwrap());
        frame[21] = 254;
        assert_eq!(read(&frame), None);
        frame[21] = 255;
        assert!(read(&frame).is_some());
        frame[70] ^= 1;
        assert_eq!(read(&frame), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..120), kind in 0u8..3) {
            let mut frame = bytes;
            if frame.len() > 14 && kind < 2 {
                frame[12..14].copy_from_slice(if kind == 0 { &ETHERTYPE_ARP } else { &ETHERTYPE_IPV6 });
            }
            let _ = read(&frame);
        }

        #[test]
        fn answers_read_back(target: u32, asker: u32, target6: u128, asker6 in 1u128..) {
            let v4 = Question { target: Ipv4Addr::from_bits(target).into(), asker: Ipv4Addr::from_bits(asker).into(), mac: ASKER };
            let v6 = Question { target: Ipv6Addr::from_bits(target6).into(), asker: Ipv6Addr::from_bits(asker6).into(), mac: ASKER };
            for question in [v4, v6] {
                let heard = read(&answer(&question, OWN).unwrap()).unwrap();
                prop_assert!(question.target == IpAddr::from([0, 0, 0, 0]) || heard.claim == Some((question.target, OWN)));
            }
        }
    }
}
