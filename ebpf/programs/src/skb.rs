//! A packet in the kernel: direct access to the linear part, helpers where checksums may be the device's business.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::{bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_pull_data, bpf_skb_store_bytes},
};
use skep_abi::Plain;
use skep_packet::{
    frame::{TCP, UDP},
    packet::{ChecksumFix, Packet},
};

/// Headers that nearly every packet has: Ethernet, IP without options, TCP. They lie in the linear part, because the
/// stack that sent or received the packet has looked at them already.
const USUAL_HEADERS4: u32 = 54;
/// The same for IPv6.
const USUAL_HEADERS6: u32 = 74;
/// Headers that some packets have: options, extension headers, or an ICMP error with what it quotes.
const ALL_HEADERS: u32 = 320;
/// Offset of an IPv4 packet's version and header length.
const VERSION_IHL_AT: u32 = 14;
/// Offset of an IPv4 packet's protocol.
const PROTOCOL_AT: u32 = 23;
/// Offset of an IPv6 packet's next header.
const NEXT_HEADER_AT: u32 = 20;
/// Offsets are cut to this, so that the verifier can bound them. Beyond every header that is looked at.
const OFFSET_MASK: u32 = 0x1ff;

/// A packet of a classifier.
pub struct Skb {
    skb: *mut __sk_buff,
}

impl Skb {
    /// Wraps a program's context, and makes sure that its Ethernet header can be accessed directly.
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff) -> Self {
        let packet = Self { skb };
        packet.pull(14);
        packet
    }

    /// Wraps the context of an IPv4 packet, headers in reach.
    ///
    /// Only what is needed is pulled: pulling payload copies the packet, which costs more than the whole program.
    #[inline(always)]
    pub fn v4(skb: *mut __sk_buff) -> Self {
        let packet = Self { skb };
        packet.pull(USUAL_HEADERS4);
        let plain =
            packet.read::<u8>(VERSION_IHL_AT) == Some(0x45) && packet.read::<u8>(PROTOCOL_AT) != Some(1);
        if !plain {
            packet.pull(ALL_HEADERS);
        }
        packet
    }

    /// Wraps the context of an IPv6 packet, headers in reach.
    #[inline(always)]
    pub fn v6(skb: *mut __sk_buff) -> Self {
        let packet = Self { skb };
        packet.pull(USUAL_HEADERS6);
        if !matches!(packet.read::<u8>(NEXT_HEADER_AT), Some(TCP | UDP)) {
            packet.pull(ALL_HEADERS);
        }
        packet
    }

    /// Wraps the context of a packet whose headers are in reach already.
    #[inline(always)]
    pub fn again(skb: *mut __sk_buff) -> Self {
        Self { skb }
    }

    #[inline(always)]
    fn pull(&self, headers: u32) {
        let wanted = if self.length() < headers { self.length() } else { headers };
        if self.data() + wanted as usize > self.data_end() {
            // SAFETY: the context is the program's own. When it fails, reads find the end of the packet.
            unsafe { bpf_skb_pull_data(self.skb, wanted) };
        }
    }

    /// The context.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut __sk_buff {
        self.skb
    }

    #[inline(always)]
    fn data(&self) -> usize {
        context_word!(self.skb, __sk_buff, data)
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        context_word!(self.skb, __sk_buff, data_end)
    }

    #[inline(always)]
    fn at<T>(&self, at: u32) -> Option<*mut T> {
        let start = self.data() + (at & OFFSET_MASK) as usize;
        // A check for one byte becomes `start >= end`, which no verifier up to 6.18 takes for a proof: ask for two.
        let span = if size_of::<T>() < 2 { 2 } else { size_of::<T>() };
        if start + span > self.data_end() {
            return None;
        }
        Some(start as *mut T)
    }
}

impl Packet for Skb {
    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the context is the program's own.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn read<T: Plain>(&self, at: u32) -> Option<T> {
        // SAFETY: the range was checked; the supported architectures read unaligned words.
        self.at::<T>(at).map(|from| unsafe { *from })
    }

    /// By helper: a program that writes directly is given a prologue that copies every cloned packet, and what TCP sends
    /// is always cloned.
    #[inline(always)]
    fn write<T: Plain>(&mut self, at: u32, value: T) -> Option<()> {
        let (from, size) = (core::ptr::from_ref(&value).cast(), size_of::<T>() as u32);
        // SAFETY: the value lives during the call, and its size is given.
        let result = unsafe { bpf_skb_store_bytes(self.skb.cast(), at, from, size, 0) };
        if result == 0 { Some(()) } else { None }
    }

    #[inline(always)]
    fn fix_l3(&mut self, at: u32, from: u32, to: u32) -> Option<()> {
        // SAFETY: the context is the program's own.
        let result = unsafe { bpf_l3_csum_replace(self.skb.cast(), at, from.into(), to.into(), 4) };
        if result == 0 { Some(()) } else { None }
    }

    #[inline(always)]
    fn fix_l4(&mut self, fix: ChecksumFix) -> Option<()> {
        let mut flags = u64::from(fix.size);
        if fix.pseudo {
            flags |= u64::from(BPF_F_PSEUDO_HDR);
        }
        if fix.udp {
            flags |= u64::from(BPF_F_MARK_MANGLED_0);
        }
        // SAFETY: the context is the program's own.
        let result =
            unsafe { bpf_l4_csum_replace(self.skb.cast(), fix.at, fix.from.into(), fix.to.into(), flags) };
        if result == 0 { Some(()) } else { None }
    }
}
