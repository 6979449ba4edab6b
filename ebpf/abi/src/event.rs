//! What the kernel reports: exact counters per reason and hook, and sampled events in a ring buffer.

use crate::{addr::Be16, drop::REASON_SLOTS, layout};

/// Where a program saw the packet.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Hook {
    /// Host side of a pod's veth, packets from the pod.
    FromPod = 0,
    /// Host side of a pod's veth, packets from the host's stack.
    ToPod = 1,
    /// Tunnel device, packets from other nodes.
    FromOverlay = 2,
    /// Tunnel device, packets from this node.
    ToOverlay = 3,
    /// Node-side veth pair, packets from processes of this node.
    FromHost = 4,
    /// A socket call.
    Socket = 5,
    /// Uplink, packets from the network.
    FromUplink = 6,
    /// Uplink, packets to the network.
    ToUplink = 7,
    /// Uplink, packets from the network before the stack.
    Xdp = 8,
}

impl Hook {
    /// Every hook, in numeric order.
    pub const ALL: &'static [Hook] = &[
        Hook::FromPod,
        Hook::ToPod,
        Hook::FromOverlay,
        Hook::ToOverlay,
        Hook::FromHost,
        Hook::Socket,
        Hook::FromUplink,
        Hook::ToUplink,
        Hook::Xdp,
    ];

    /// The label of the hook in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Hook::FromPod => "from_pod",
            Hook::ToPod => "to_pod",
            Hook::FromOverlay => "from_overlay",
            Hook::ToOverlay => "to_overlay",
            Hook::FromHost => "from_host",
            Hook::Socket => "socket",
            Hook::FromUplink => "from_uplink",
            Hook::ToUplink => "to_uplink",
            Hook::Xdp => "xdp",
        }
    }

    /// The hook of a number.
    pub const fn from_number(number: u8) -> Option<Self> {
        if (number as usize) < Self::ALL.len() { Some(Self::ALL[number as usize]) } else { None }
    }
}

impl core::fmt::Display for Hook {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.label())
    }
}

/// A per-CPU counter. Index: [`Counter::index`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counter {
    /// Packets, or calls for the socket hook.
    pub packets: u64,
    /// Bytes of those packets, headers included.
    pub bytes: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC` of the last event that this CPU sent for this counter.
    pub sampled: u64,
}

layout!(Counter, size = 24, fields = [packets: u64, bytes: u64, sampled: u64]);

impl Counter {
    /// Hooks that the counter map has room for: a power of two, so that programs can bound a number by a mask.
    pub const HOOKS: u32 = 16;
    /// Entries of the counter map.
    pub const SLOTS: u32 = REASON_SLOTS * Self::HOOKS;

    /// Where entries that programs add to the IPv4 conntrack are counted; beyond every hook. With the entries that are
    /// there and those that were removed it says how many were evicted.
    pub const ADDED_FLOWS4: u32 = REASON_SLOTS * (Self::HOOKS - 1);
    /// Where entries that programs add to the IPv6 conntrack are counted.
    pub const ADDED_FLOWS6: u32 = Self::ADDED_FLOWS4 + 1;
    /// Where entries that programs add to the affinity map are counted.
    pub const ADDED_AFFINITY: u32 = Self::ADDED_FLOWS4 + 2;

    /// Where a reason (zero: passed) of a hook is counted.
    #[inline(always)]
    pub const fn index(hook: Hook, reason: u8) -> u32 {
        (hook as u32) * REASON_SLOTS + reason as u32
    }
}

/// A CPU sends at most one event per counter in this time, in nanoseconds.
pub const SAMPLE_INTERVAL: u64 = 50_000_000;

/// A sampled drop.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowEvent {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Source address as received; IPv4 in the first four bytes.
    pub src: [u8; 16],
    /// Destination address as received; IPv4 in the first four bytes.
    pub dst: [u8; 16],
    /// Interface that the program is attached to.
    pub ifindex: u32,
    /// Length of the packet in bytes.
    pub length: u32,
    /// Ethernet type; addresses and ports are meaningful for IPv4 (0x0800) and IPv6 (0x86dd) only.
    pub ethertype: Be16,
    /// Source port; zero where unknown.
    pub src_port: Be16,
    /// Destination port; zero where unknown.
    pub dst_port: Be16,
    /// IP protocol number.
    pub protocol: u8,
    /// Number of the [`crate::DropReason`].
    pub reason: u8,
    /// Number of the [`Hook`].
    pub hook: u8,
    /// Always zero.
    pub pad: [u8; 7],
}

layout!(FlowEvent, size = 64, fields = [
    time: u64, src: [u8; 16], dst: [u8; 16], ifindex: u32, length: u32, ethertype: Be16, src_port: Be16,
    dst_port: Be16, protocol: u8, reason: u8, hook: u8, pad: [u8; 7],
]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_all_hooks_and_reasons_fit_the_map_without_overlap() {
        let last = Hook::ALL[Hook::ALL.len() - 1];
        assert!(Counter::index(last, (REASON_SLOTS - 1) as u8) < Counter::SLOTS);
        assert_eq!(Counter::index(Hook::ToPod, 0), REASON_SLOTS);
        for (number, hook) in Hook::ALL.iter().enumerate() {
            assert_eq!(Hook::from_number(number as u8), Some(*hook));
        }
    }
}
