//! ARP (RFC 826) as pods and the node-side veth pair see it: one router with one link-layer address answers for all.

use skep_abi::{Be16, DropReason, Endpoint, Mac, V4, layout};

use crate::packet::{ETH_LEN, EthHeader, Packet, set_macs};

/// An ARP packet for IPv4 over Ethernet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpPacket {
    hardware: Be16,
    protocol: Be16,
    lengths: [u8; 2],
    operation: Be16,
    sender_mac: Mac,
    sender: [u8; 4],
    target_mac: Mac,
    target: [u8; 4],
}

layout!(ArpPacket, size = 28, fields = [
    hardware: Be16, protocol: Be16, lengths: [u8; 2], operation: Be16, sender_mac: Mac, sender: [u8; 4],
    target_mac: Mac, target: [u8; 4],
]);

const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// What to do with an ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpAction {
    /// It was turned into its own answer: send it back.
    Answer,
    /// It answers the stack's question: let it through.
    Pass,
}

impl ArpPacket {
    /// The sender's claimed address.
    #[inline(always)]
    pub fn sender(&self) -> V4 {
        V4::new(self.sender)
    }

    /// Reads an ARP packet.
    ///
    /// # Errors
    /// [`DropReason::Malformed`].
    #[inline(always)]
    pub fn read<P: Packet>(packet: &P) -> Result<Self, DropReason> {
        let arp: Self = packet.read(ETH_LEN).ok_or(DropReason::Malformed)?;
        if arp.hardware.get() != 1 || arp.protocol.get() != 0x0800 || arp.lengths != [6, 4] {
            return Err(DropReason::Malformed);
        }
        Ok(arp)
    }

    /// Turns a request into its answer: `mac` has the asked address.
    #[inline(always)]
    fn answer<P: Packet>(&self, packet: &mut P, mac: Mac) -> Option<()> {
        let answer = Self {
            operation: Be16::new(REPLY),
            sender_mac: mac,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
            ..*self
        };
        packet.write(ETH_LEN, answer)?;
        set_macs(packet, self.sender_mac, mac)
    }
}

/// ARP from a pod. `endpoint` is what is known of the claimed sender address.
///
/// # Errors
/// [`DropReason::SpoofedArp`], [`DropReason::RewriteFailed`].
#[inline(always)]
pub fn from_pod<P: Packet>(
    packet: &mut P,
    arp: &ArpPacket,
    endpoint: Option<Endpoint>,
    ifindex: u32,
) -> Result<ArpAction, DropReason> {
    let endpoint = endpoint.ok_or(DropReason::SpoofedArp)?;
    let header: EthHeader = packet.read(0).ok_or(DropReason::Malformed)?;
    if endpoint.ifindex != ifindex || header.src != endpoint.mac || arp.sender_mac != endpoint.mac {
        return Err(DropReason::SpoofedArp);
    }
    match arp.operation.get() {
        // A pod asking for its own address checks for duplicates: nobody else has it.
        REQUEST if arp.target == arp.sender => Err(DropReason::SpoofedArp),
        REQUEST => {
            arp.answer(packet, endpoint.host_mac).ok_or(DropReason::RewriteFailed)?;
            Ok(ArpAction::Answer)
        }
        REPLY => Ok(ArpAction::Pass),
        _ => Err(DropReason::Malformed),
    }
}

/// ARP from the node's own stack on the node-side veth pair: every question is answered with `mac`.
///
/// # Errors
/// [`DropReason::Malformed`], [`DropReason::RewriteFailed`].
#[inline(always)]
pub fn from_host<P: Packet>(packet: &mut P, arp: &ArpPacket, mac: Mac) -> Result<ArpAction, DropReason> {
    if arp.operation.get() != REQUEST || arp.target == arp.sender {
        return Err(DropReason::Malformed);
    }
    arp.answer(packet, mac).ok_or(DropReason::RewriteFailed)?;
    Ok(ArpAction::Answer)
}
