//! Loads, attaches and pins the eBPF programs; typed map handles behind small traits with in-memory fakes.
//!
//! The only crate that talks to the kernel's BPF side. It decides nothing: the daemon reconciles its desired tables into
//! the [`MapTable`]s of a [`Datapath`] and tells it which devices to attach to. Everything it creates is pinned below
//! [`DatapathConfig::pin_root`], so that traffic goes on while no agent runs and the next agent adopts it.
//!
//! Map: [`config`] is what a caller fills in; [`datapath`] is the door ([`Datapath::open`]); [`rows`] are the typed
//! keys and values, [`table`] the trait they are stored through (and its fake), [`kernel`] its implementation on maps;
//! [`pins`] adopts or rebuilds pinned maps; [`attach`] and [`cgroup`] put programs on devices and cgroups; [`conntrack`]
//! collects garbage; [`counters`] and [`events`] read what the programs report; [`objects`] finds the compiled programs.
//!
//! What the programs expect of the node is written down at [`Datapath`].

pub mod attach;
pub mod cgroup;
pub mod config;
pub mod conntrack;
pub mod counters;
pub mod datapath;
pub mod error;
pub mod events;
pub mod kernel;
pub mod limits;
pub mod objects;
pub mod pins;
pub mod rows;
mod sys;
pub mod table;
pub mod test_run;

pub use attach::{AttachKind, AttachReport};
pub use config::{DatapathConfig, MapSizes, NodeSettings};
pub use conntrack::{CtEntry, GcReport, Timeouts};
pub use counters::CounterRow;
pub use datapath::{Datapath, Tables};
pub use error::DatapathError;
pub use events::{DropEvent, EventReader};
pub use limits::Limits;
pub use rows::{BackendAddress, BackendSlot, Endpoint, Frontend, Peer, PeerKind};
pub use table::{FakeTable, MapTable, TableError};
pub use test_run::{TestOutcome, TestPacket};
