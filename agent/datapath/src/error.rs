//! What can go wrong between the agent and the kernel's BPF side.

use std::{io, path::PathBuf};

use aya::{
    EbpfError,
    maps::MapError,
    programs::{ProgramError, links::LinkError, tc::TcError},
};

use crate::table::TableError;

/// Why the data path could not be opened, attached or read.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// This build holds no programs and no folder with them was given.
    #[error(
        "no compiled eBPF object {name:?}: run `cargo xtask ebpf` and build again, or name a folder of objects"
    )]
    NoObject {
        /// Name of the object.
        name: String,
    },
    /// A file or folder could not be used.
    #[error("{action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// An object was refused.
    #[error(
        "eBPF object {name:?} cannot be loaded (needs root, CAP_BPF and a kernel of 5.10 or later): {source}"
    )]
    Object {
        /// Name of the object.
        name: String,
        /// Why.
        #[source]
        source: Box<EbpfError>,
    },
    /// A program was refused by the verifier or could not be attached.
    #[error("eBPF program {name:?} on {target}: {source}")]
    Program {
        /// Name of the program.
        name: String,
        /// Device or cgroup.
        target: String,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// A pinned link cannot be used.
    #[error("pinned link {path}: {source}")]
    Link {
        /// Where it is pinned.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<LinkError>,
    },
    /// A clsact queueing discipline or filter was refused.
    #[error("clsact on interface {ifindex}: {source}")]
    Clsact {
        /// Interface index.
        ifindex: u32,
        /// Why.
        #[source]
        source: Box<TcError>,
    },
    /// No such interface in this network namespace.
    #[error("interface {ifindex} does not exist here: {source}")]
    NoInterface {
        /// Interface index.
        ifindex: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A map operation failed.
    #[error("map {name}: {source}")]
    Map {
        /// Name of the map.
        name: String,
        /// Why.
        #[source]
        source: Box<MapError>,
    },
    /// An object lacks a map or a program that this build expects.
    #[error(
        "eBPF object {object:?} has no {what}: it was built from another version, run `cargo xtask ebpf`"
    )]
    Incompatible {
        /// Name of the object.
        object: String,
        /// What is missing.
        what: String,
    },
    /// A typed table refused a row.
    #[error(transparent)]
    Table(#[from] TableError),
}
