//! Every byte that kernel and user space share: map layouts, names, drop reasons, verdicts.
//!
//! Owns the definitions only; `skep-packet` gives them meaning and `skep-datapath` stores them. Nothing here allocates
//! or depends on anything, so that the same source compiles for the BPF target and for the host.
//!
//! Map: [`addr`] holds byte-order newtypes and addresses of both families; [`maps`] says which maps exist; [`endpoint`],
//! [`ipcache`], [`service`] and [`conntrack`] are their keys and values; [`drop`] names every reason a packet dies for;
//! [`event`] is the ring buffer record; [`node`] is the read-only configuration that programs are loaded with.
//!
//! Every shared type is `repr(C)`, has no implicit padding (asserted where it is defined) and is valid for any bytes.
#![no_std]

pub mod addr;
pub mod conntrack;
pub mod drop;
pub mod endpoint;
pub mod event;
pub mod ipcache;
pub mod maps;
pub mod node;
pub mod programs;
pub mod service;

pub use addr::{Addr, Be16, Mac, V4, V6};
pub use conntrack::{CtFlags, CtKey, CtState, CtValue, FragmentKey, FragmentValue, TcpSeen};
pub use drop::DropReason;
pub use endpoint::Endpoint;
pub use event::{Counter, FlowEvent, Hook};
pub use ipcache::{IpcacheKey, Peer, PeerFlags};
pub use node::{FamilyConfig, NodeConfig, NodeMode};
pub use service::{
    AffinityKey, AffinityValue, BackendKey, BackendValue, MaglevChunk, MaglevKey, Scope, ServiceFlags,
    ServiceKey, ServiceValue, SockKey, SockValue, SourceKey,
};

/// VXLAN network identifier of traffic whose inner source is inside the cluster.
pub const VNI_CLUSTER: u32 = 1;
/// VXLAN network identifier of traffic whose inner source is outside the cluster.
pub const VNI_WORLD: u32 = 2;
/// Value of `skb->tc_index` between a program that chose the tunnel and the overlay's egress program.
pub const TC_INDEX_ENCAPSULATED: u16 = 0x5c3b;
/// Value of `skb->tc_index` between a program that sent a packet out of the node and the uplink's egress program, which
/// has nothing left to do.
pub const TC_INDEX_DONE: u16 = 0x5c3c;
/// Clock of conntrack: nanoseconds of `CLOCK_MONOTONIC` shifted right by this, about a second a tick.
pub const TICK_SHIFT: u32 = 30;

/// Marks a type as plain data: any bit pattern is valid and it holds no implicit padding.
///
/// # Safety
///
/// The implementor must be `repr(C)` or `repr(transparent)`, contain only plain data, and have no padding bytes.
pub unsafe trait Plain: Copy + 'static {}

macro_rules! plain {
    ($($type:ty),* $(,)?) => {
        // SAFETY: integers and arrays of bytes have no invalid bit patterns and no padding.
        $(unsafe impl Plain for $type {})*
    };
}
plain!(
    u8, u16, u32, u64, [u8; 2], [u8; 4], [u8; 6], [u8; 8], [u8; 12], [u8; 14], [u8; 16], [u8; 20], [u8; 28],
    [u32; 4], [u16; 64]
);

/// Implements [`Plain`] for a struct and proves its size, so that a field that brings padding fails the build.
#[macro_export]
macro_rules! layout {
    ($type:ty, size = $size:expr, fields = [$($field:ident : $fty:ty),* $(,)?]) => {
        // SAFETY: repr(C) plain fields; the assertions below prove that their sizes add up to the whole.
        unsafe impl $crate::Plain for $type {}
        const _: () = {
            assert!(core::mem::size_of::<$type>() == $size);
            assert!(0 $(+ core::mem::size_of::<$fty>())* == $size);
            let mut at = 0usize;
            $(
                assert!(core::mem::offset_of!($type, $field) == at);
                at += core::mem::size_of::<$fty>();
            )*
            assert!(at == $size);
        };
    };
}
