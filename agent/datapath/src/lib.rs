//! Loads, attaches and pins the eBPF programs; typed map handles behind small traits with in-memory fakes.
//!
//! The only crate that talks to the kernel's BPF side. It decides nothing: the daemon reconciles its desired tables into
//! the [`MapTable`]s of a [`Datapath`] and tells it which devices to attach to. Everything it creates is pinned below
//! [`DatapathConfig::pin_root`], so that traffic goes on while no agent runs and the next agent adopts it.
//!
//! Map: [`config`] is what a caller fills in; [`datapath`] is the door ([`Datapath::open`]); [`rows`] are the typed
//! keys and values, [`table`] the trait they are stored through (and its fake), `kernel` its implementation on maps and
//! `codec` the bytes of each; [`pins`] adopts, migrates (`convert`) or rebuilds pinned maps; `load` loads programs, which
//! [`attach`], [`cgroup`] and [`xdp`] put on devices and cgroups; `upkeep` answers questions about a running data path:
//! [`conntrack`], [`affinity`], [`pressure`], [`counters`] and [`events`]; [`objects`] finds the compiled programs.
//!
//! What the programs expect of the node is written down at [`Datapath`].

pub mod affinity;
pub mod attach;
pub mod cgroup;
mod codec;
pub mod config;
pub mod conntrack;
mod convert;
pub mod counters;
pub mod datapath;
pub mod error;
pub mod events;
mod kernel;
pub mod limits;
mod load;
pub mod objects;
pub mod pins;
pub mod pressure;
pub mod rows;
mod sys;
pub mod table;
pub mod test_run;
mod upkeep;
pub mod verify;
pub mod xdp;

pub use affinity::{AffinityClient, AffinityEntry};
pub use attach::{AttachKind, AttachReport};
pub use config::{DatapathConfig, Families, FamilySettings, MapSizes, NodeSettings};
pub use conntrack::{CtEntry, CtHalf, CutBackend, GcReport, Timeouts};
pub use counters::CounterRow;
pub use datapath::{Datapath, Tables};
pub use error::DatapathError;
pub use events::{DropEvent, EventReader};
pub use limits::Limits;
pub use pins::{MapOrigin, MapReport};
pub use pressure::MapPressure;
pub use rows::{
    BackendAddress, BackendSlot, Endpoint, Frontend, FrontendFlags, FrontendKey, MAGLEV_CHUNK, MaglevChunk,
    MaglevKey, Peer, PeerKind, Scope, SourceRange,
};
pub use table::{FakeTable, MapTable, TableError};
pub use test_run::{TestOutcome, TestPacket};
pub use xdp::XdpMode;
