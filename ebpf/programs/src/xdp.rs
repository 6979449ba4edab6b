//! A packet before the stack: direct access, checksums that are always complete, and our own VXLAN encapsulation
//! (RFC 7348), because there is no tunnel device to ask yet.

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibLookup,
        xdp_action::{XDP_PASS, XDP_TX},
        xdp_md,
    },
    helpers::{bpf_fib_lookup, bpf_redirect, bpf_xdp_adjust_head},
};
use skep_abi::{Addr, Be16, DropReason, Hook, Mac, Plain, V4, V6, VNI_CLUSTER, VNI_WORLD};
use skep_packet::{
    Action, Family,
    family::{Ipv4Header, Ipv6Header},
    packet::{ChecksumFix, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthHeader, Packet},
};

use crate::{
    env::KernelEnv,
    maps::{node, room},
    report, zeros,
};

/// Offsets are cut to this, so that the verifier can bound them. Beyond every header that is looked at.
const OFFSET_MASK: u32 = 0x1ff;
const VXLAN_PORT: u16 = 8472;
const UDP: u8 = 17;
const TTL: u8 = 64;
/// Source ports that say nothing but which flow it is (RFC 6335, dynamic).
const FIRST_SOURCE_PORT: u32 = 0xc000;
/// Ethernet, UDP and VXLAN; the IP header comes in between.
const AROUND_IP: u32 = 14 + 8 + 8;

/// A packet before the stack.
pub struct XdpPacket {
    ctx: *mut xdp_md,
}

impl XdpPacket {
    /// Wraps a program's context.
    #[inline(always)]
    pub fn new(ctx: *mut xdp_md) -> Self {
        Self { ctx }
    }

    #[inline(always)]
    fn data(&self) -> usize {
        context_word!(self.ctx, xdp_md, data)
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        context_word!(self.ctx, xdp_md, data_end)
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

    #[inline(always)]
    fn fix(&mut self, at: u32, from: u32, to: u32, udp: bool) -> Option<()> {
        let old: u16 = self.read(at)?;
        if udp && old == 0 {
            return Some(());
        }
        let new = updated(old, from, to);
        self.write(at, if udp && new == 0 { u16::MAX } else { new })
    }
}

/// A checksum after a change (RFC 1624), all in network order: the sum does not care.
#[inline(always)]
fn updated(old: u16, from: u32, to: u32) -> u16 {
    let removed = !from;
    let sum = u32::from(!old) + (removed & 0xffff) + (removed >> 16) + (to & 0xffff) + (to >> 16);
    !(folded(sum))
}

#[inline(always)]
fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

impl Packet for XdpPacket {
    #[inline(always)]
    fn length(&self) -> u32 {
        (self.data_end() - self.data()) as u32
    }

    #[inline(always)]
    fn read<T: Plain>(&self, at: u32) -> Option<T> {
        // SAFETY: the range was checked; the supported architectures read unaligned words.
        self.at::<T>(at).map(|from| unsafe { *from })
    }

    #[inline(always)]
    fn write<T: Plain>(&mut self, at: u32, value: T) -> Option<()> {
        // SAFETY: the range was checked; the supported architectures write unaligned words.
        self.at::<T>(at).map(|to| unsafe { *to = value })
    }

    #[inline(always)]
    fn fix_l3(&mut self, at: u32, from: u32, to: u32) -> Option<()> {
        self.fix(at, from, to, false)
    }

    #[inline(always)]
    fn fix_l4(&mut self, fix: ChecksumFix) -> Option<()> {
        self.fix(fix.at, fix.from, fix.to, fix.udp)
    }
}

/// UDP and VXLAN headers.
#[repr(C)]
#[derive(Clone, Copy)]
struct Vxlan {
    src_port: Be16,
    dst_port: Be16,
    length: Be16,
    checksum: u16,
    flags: u32,
    vni: u32,
}

skep_abi::layout!(Vxlan, size = 16, fields = [
    src_port: Be16, dst_port: Be16, length: Be16, checksum: u16, flags: u32, vni: u32,
]);

/// The way to a node of the underlay.
#[repr(C)]
struct Way {
    ifindex: u32,
    src: Mac,
    dst: Mac,
}

/// Asks the routes; nothing unless the packet can leave right here: without a neighbour, or too large for the underlay,
/// the stack does better. Kept out of line for the sake of the stack.
#[inline(never)]
fn way_to(ctx: *mut xdp_md, node: &V6, length: u32, way: &mut Way) -> bool {
    // SAFETY: all zeros is a valid request.
    let mut room = unsafe { zeros::<FibLookup>() };
    // SAFETY: it is initialised.
    let fib = unsafe { room.assume_init_mut() };
    match node.mapped() {
        Some(node) => {
            fib.family = V4::FAMILY;
            fib.__bindgen_anon_1.tot_len = (length + AROUND_IP - 14 + 20) as u16;
            fib.__bindgen_anon_3.ipv4_src = node!(v4.node_ip).raw();
            fib.__bindgen_anon_4.ipv4_dst = node.raw();
        }
        None => {
            fib.family = V6::FAMILY;
            fib.__bindgen_anon_1.tot_len = (length + AROUND_IP - 14 + 40) as u16;
            fib.__bindgen_anon_3.ipv6_src = node!(v6.node_ip).raw();
            fib.__bindgen_anon_4.ipv6_dst = node.raw();
        }
    }
    fib.l4_protocol = UDP;
    // SAFETY: the context is the program's own.
    fib.ifindex = unsafe { (*ctx).ingress_ifindex };
    let size = size_of::<FibLookup>() as i32;
    // SAFETY: the request lives during the call.
    let result = unsafe { bpf_fib_lookup(ctx.cast(), &raw mut *fib, size, 0) };
    *way = Way { ifindex: fib.ifindex, src: fib.smac, dst: fib.dmac };
    result == i64::from(BPF_FIB_LKUP_RET_SUCCESS)
}

impl Way {
    /// Sends the packet out.
    #[inline(always)]
    fn leave(&self, ctx: *mut xdp_md) -> i32 {
        // SAFETY: the context is the program's own.
        if self.ifindex == unsafe { (*ctx).ingress_ifindex } {
            return XDP_TX as i32;
        }
        // SAFETY: no preconditions; a bad index drops the packet.
        unsafe { bpf_redirect(self.ifindex, 0) as i32 }
    }
}

/// What a packet of a family becomes: an XDP verdict, or, below zero, the number of the reason to drop.
#[inline(always)]
pub fn early<A: Family>(ctx: *mut xdp_md) -> i32
where
    KernelEnv: skep_packet::Env<A>,
{
    let Some(room) = room::<A>() else { return XDP_PASS as i32 };
    let mut packet = XdpPacket::new(ctx);
    // SAFETY: all zeros is a valid way.
    let mut unknown = unsafe { zeros::<Way>() };
    // SAFETY: it is initialised.
    let way = unsafe { unknown.assume_init_mut() };
    let length = packet.length();
    let outcome = skep_packet::hooks::xdp::<A, _, _>(&mut KernelEnv, &mut packet, room, |node| {
        way_to(ctx, &node, length, way)
    });
    if let Err(reason) = outcome {
        return -(reason as i32);
    }
    let vni = match room.action {
        Action::Tunnel => VNI_CLUSTER,
        Action::TunnelOutside => VNI_WORLD,
        _ => return XDP_PASS as i32,
    };
    if encapsulate::<A>(ctx, way, &room.node, vni) {
        way.leave(ctx)
    } else {
        -(DropReason::TunnelFailed as i32)
    }
}

/// Puts Ethernet, IP, UDP and VXLAN headers in front. Kept out of line for the sake of the stack.
#[inline(never)]
fn encapsulate<A: Family>(ctx: *mut xdp_md, way: &Way, node: &V6, vni: u32) -> bool {
    wrap::<A>(&mut XdpPacket::new(ctx), way, *node, vni).is_some()
}

#[inline(always)]
fn wrap<A: Family>(packet: &mut XdpPacket, way: &Way, node: V6, vni: u32) -> Option<()> {
    let inner = packet.length();
    let hash = flow_hash::<A>(packet)?;
    match node.mapped() {
        Some(node) => {
            let header = outer4(node, inner);
            grow(packet, AROUND_IP + 20)?;
            packet.write(0, ethernet(way, ETHERTYPE_IPV4))?;
            packet.write(14, header)?;
            packet.write(34, vxlan(hash, inner, vni))
        }
        None => {
            grow(packet, AROUND_IP + 40)?;
            packet.write(0, ethernet(way, ETHERTYPE_IPV6))?;
            let header = Ipv6Header {
                version: [0x60, 0, 0, 0],
                length: Be16::new((inner + 16) as u16),
                next: UDP,
                hops: TTL,
                src: node!(v6.node_ip),
                dst: node,
            };
            packet.write(14, header)?;
            packet.write(54, vxlan(hash, inner, vni))
        }
    }
}

#[inline(always)]
fn grow(packet: &mut XdpPacket, by: u32) -> Option<()> {
    // SAFETY: the context is the program's own; every later access asks for its bounds again.
    let result = unsafe { bpf_xdp_adjust_head(packet.ctx, -(by as i32)) };
    if result == 0 { Some(()) } else { None }
}

#[inline(always)]
fn ethernet(way: &Way, ethertype: u16) -> EthHeader {
    EthHeader { dst: way.dst, src: way.src, ethertype: Be16::new(ethertype) }
}

#[inline(always)]
fn outer4(node: V4, inner: u32) -> Ipv4Header {
    let src = node!(v4.node_ip);
    let length = Be16::new((inner + 36) as u16);
    let (from, to) = (src.raw(), node.raw());
    // The sum of the header's words, in network order: 0x4500, the length, 0x4011 and both addresses.
    let sum = u32::from(0x4500_u16.to_be())
        + u32::from(length.raw())
        + u32::from(u16::from_be_bytes([TTL, UDP]).to_be())
        + (from & 0xffff)
        + (from >> 16)
        + (to & 0xffff)
        + (to >> 16);
    Ipv4Header {
        version_ihl: 0x45,
        tos: 0,
        length,
        id: Be16::ZERO,
        fragment: Be16::ZERO,
        ttl: TTL,
        protocol: UDP,
        checksum: Be16::from_raw(!folded(sum)),
        src,
        dst: node,
    }
}

/// Without a checksum: the inner packet has one, and the receiving device is made for that in both families.
#[inline(always)]
fn vxlan(hash: u32, inner: u32, vni: u32) -> Vxlan {
    Vxlan {
        src_port: Be16::new((FIRST_SOURCE_PORT | hash & 0x3fff) as u16),
        dst_port: Be16::new(VXLAN_PORT),
        length: Be16::new((inner + 16) as u16),
        checksum: 0,
        flags: 0x0800_0000_u32.to_be(),
        vni: (vni << 8).to_be(),
    }
}

/// A number that packets of a flow share, for devices that spread by ports.
#[inline(always)]
fn flow_hash<A: Family>(packet: &XdpPacket) -> Option<u32> {
    let (src, dst): (A, A) = (packet.read(A::SRC_AT)?, packet.read(A::DST_AT)?);
    let ports: u32 = packet.read(14 + A::HEADER_LEN)?;
    let (src, dst) = (src.words(), dst.words());
    let mixed = src[0] ^ src[1] ^ src[2] ^ src[3] ^ dst[0].rotate_left(16) ^ dst[3] ^ ports;
    Some(mixed.wrapping_mul(0x9e37_79b1) >> 18)
}

/// Ends a program: counts what it took off the stack's hands, or drops for the reason.
#[inline(always)]
pub fn finish(ctx: *mut xdp_md, length: u32, code: i32) -> i32 {
    const XDP_DROP: i32 = aya_ebpf::bindings::xdp_action::XDP_DROP as i32;
    if code < 0 {
        report::dropped_early(ctx, Hook::Xdp as u8, code.unsigned_abs() as u8);
        return XDP_DROP;
    }
    if code != XDP_PASS as i32 {
        report::passed(Hook::Xdp, length);
    }
    code
}
