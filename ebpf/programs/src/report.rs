//! Counters and sampled events.

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    helpers::bpf_ktime_get_ns,
};
use skep_abi::{
    Addr, Counter, DropReason, FlowEvent, Hook, V4, V6, addr::Be16, drop::REASON_SLOTS,
    event::SAMPLE_INTERVAL,
};
use skep_packet::{
    Family,
    frame::{TCP, UDP},
    packet::{ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Packet},
};

use crate::{
    maps::{COUNTERS, EVENTS},
    skb::Skb,
    xdp::XdpPacket,
};

/// Adds to a counter so that no interruption loses the addition.
#[inline(always)]
fn add(counter: *mut u64, amount: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the pointer comes from a map lookup in this program run. The form without a result exists on every kernel.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({counter} + 0) += {amount}",
            counter = in(reg) counter,
            amount = in(reg) amount,
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    let _ = (counter, amount);
}

#[inline(always)]
fn counter(hook: Hook, reason: u8) -> Option<*mut Counter> {
    COUNTERS.get_ptr_mut(Counter::index(hook, reason))
}

#[inline(always)]
fn count(counter: *mut Counter, bytes: u32) {
    // SAFETY: the pointer comes from a map lookup in this program run.
    let (packets, total) = unsafe { (&raw mut (*counter).packets, &raw mut (*counter).bytes) };
    add(packets, 1);
    add(total, u64::from(bytes));
}

/// Counts what passed a classifier. Classifiers run with interrupts of their kind off, so a plain addition is exact.
#[inline(always)]
pub fn passed(hook: Hook, bytes: u32) {
    if let Some(counter) = counter(hook, 0) {
        // SAFETY: the pointer comes from a map lookup in this program run, and the slot is this CPU's own.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(bytes);
        }
    }
}

/// Counts a translated socket call.
#[inline(always)]
pub fn translated(hook: Hook) {
    if let Some(counter) = counter(hook, 0) {
        count(counter, 0);
    }
}

/// Counts a refused socket call.
#[inline(always)]
pub fn refused(hook: Hook, reason: DropReason) {
    if let Some(counter) = counter(hook, reason as u8) {
        count(counter, 0);
    }
}

/// Counts an entry that was added to a map, at an index of [`Counter`].
#[inline(always)]
pub fn added(index: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: the pointer comes from a map lookup in this program run, and the slot is this CPU's own.
        unsafe { (*counter).packets += 1 };
    }
}

/// Counts a drop, and now and then sends an event about one. Kept out of line: drops are rare, code is not free.
#[inline(never)]
pub fn dropped(skb: *mut __sk_buff, hook: u8, reason: u8) -> i32 {
    // SAFETY: the context is the program's own.
    let ifindex = unsafe { (*skb).ifindex };
    record(&Skb::new(skb), ifindex, hook, reason)
}

/// As [`dropped`], before the stack.
#[inline(never)]
pub fn dropped_early(ctx: *mut xdp_md, hook: u8, reason: u8) -> i32 {
    // SAFETY: the context is the program's own.
    let ifindex = unsafe { (*ctx).ingress_ifindex };
    record(&XdpPacket::new(ctx), ifindex, hook, reason)
}

#[inline(always)]
fn record<P: Packet>(packet: &P, ifindex: u32, hook: u8, reason: u8) -> i32 {
    let hook = hook & (Counter::HOOKS - 1) as u8;
    let index = u32::from(hook) * REASON_SLOTS + (u32::from(reason) & (REASON_SLOTS - 1));
    let Some(counter) = COUNTERS.get_ptr_mut(index) else { return 0 };
    count(counter, packet.length());
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the pointer comes from a map lookup in this program run.
    let sampled = unsafe { &mut (*counter).sampled };
    if now.wrapping_sub(*sampled) >= SAMPLE_INTERVAL {
        *sampled = now;
        send(packet, ifindex, hook, reason, now);
    }
    0
}

/// Builds the event where it is sent from: on the stack it would not fit beside the entry point on older kernels.
#[inline(always)]
fn send<P: Packet>(packet: &P, ifindex: u32, hook: u8, reason: u8, time: u64) {
    let Some(mut slot) = EVENTS.reserve::<FlowEvent>(0) else { return };
    let words: *mut u64 = slot.as_mut_ptr().cast();
    let mut at = 0;
    while at < size_of::<FlowEvent>() / 8 {
        // SAFETY: the offset is within the reserved record.
        unsafe { core::ptr::write_volatile(words.add(at), 0) };
        at += 1;
    }
    // SAFETY: every byte of the record is initialised.
    let event = unsafe { &mut *slot.as_mut_ptr() };
    event.time = time;
    event.length = packet.length();
    event.reason = reason;
    event.hook = hook;
    event.ifindex = ifindex;
    let _as_far_as_it_goes = fill(packet, event);
    slot.submit(0);
}

#[inline(always)]
fn fill<P: Packet>(packet: &P, event: &mut FlowEvent) -> Option<()> {
    event.ethertype = packet.read::<Be16>(12)?;
    let ports_at = match event.ethertype.get() {
        ETHERTYPE_IPV4 => {
            event.protocol = packet.read(ETH_LEN + 9)?;
            put(&mut event.src, packet.read::<V4>(V4::SRC_AT)?);
            put(&mut event.dst, packet.read::<V4>(V4::DST_AT)?);
            if packet.read::<u8>(ETH_LEN)? != 0x45 {
                return None;
            }
            ETH_LEN + 20
        }
        ETHERTYPE_IPV6 => {
            event.protocol = packet.read(ETH_LEN + 6)?;
            put(&mut event.src, packet.read::<V6>(V6::SRC_AT)?);
            put(&mut event.dst, packet.read::<V6>(V6::DST_AT)?);
            ETH_LEN + 40
        }
        _ => return None,
    };
    if event.protocol == TCP || event.protocol == UDP {
        event.src_port = packet.read(ports_at)?;
        event.dst_port = packet.read(ports_at + 2)?;
    }
    Some(())
}

/// Writes an address to the first bytes of a field whose alignment in the record is that of a word.
#[inline(always)]
fn put<A: Addr>(field: &mut [u8; 16], addr: A) {
    // SAFETY: an address has at most sixteen bytes.
    unsafe { field.as_mut_ptr().cast::<A>().write(addr) };
}
