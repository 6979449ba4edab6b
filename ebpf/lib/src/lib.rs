//! Packet logic that runs in the kernel and on the host: parse, checksum, conntrack, load balancing.
//!
//! Everything here is a function from a packet and what the maps say to an action or a [`skep_abi::DropReason`]; the
//! programs bind it to contexts, helpers and maps, the tests to byte vectors and hash maps. One source serves both
//! address families: what differs is in [`family`].
//!
//! Map: [`packet`] and [`mod@env`] are the two seams to the outside; [`frame`] is a parsed packet, [`room`] where it is
//! kept; [`conntrack`], [`lb`] and [`snat`] are state, [`nat`], [`icmp`], [`arp`] and [`ndp`] rewrite;
//! [`policy`] is where verdicts will come from; [`flow`] ties them together; [`hooks`] has a function for each place where
//! a program sits; [`sock`] translates sockets.
//!
//! Kernel floor 5.10: only short loops with constant bounds, no fetched atomics. Small functions are
//! inlined; the steps of a hook are functions of their own, see [`room`].
#![no_std]

#[cfg(test)]
extern crate std;

pub mod arp;
pub mod conntrack;
pub mod csum;
pub mod env;
pub mod family;
pub mod flow;
pub mod frame;
pub mod hooks;
pub mod icmp;
pub mod lb;
pub mod nat;
pub mod ndp;
pub mod packet;
pub mod policy;
pub mod room;
pub mod snat;
pub mod sock;

#[cfg(test)]
mod fake;

pub use env::{Env, SockEnv};
pub use family::Family;
pub use frame::{Content, Frame};
pub use hooks::Action;
pub use packet::{ChecksumFix, Packet};
pub use room::Room;
