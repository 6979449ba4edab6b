//! Packets through the programs with BPF_PROG_TEST_RUN, and the data path in real namespaces.
//!
//! Needs root and compiled objects (`cargo xtask ebpf`). [`bench`] is a data path of its own below a private pin folder;
//! [`craft`] builds packets and reads them back, checksums verified; [`netns`] makes network namespaces and
//! [`cluster`] two nodes with pods in them, all gone when the value is dropped; [`old`] pins maps as older agents did.

pub mod bench;
pub mod cluster;
pub mod craft;
pub mod netns;
pub mod old;
pub mod peer;
pub mod reset;

pub use bench::Bench;
pub use cluster::{Attach, Balancing, Cluster};
pub use craft::{Crafted, Segment};
pub use peer::Peer;
