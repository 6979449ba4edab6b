//! `skep init`: pid 1 of a node. It reaps, supervises the node's services, and on a lab node first
//! makes the root file system it lives in.
//!
//! The way of a lab node: `skep up` runs `skep boot FILE`, which joins the node's cgroups and network
//! namespace, unshares the rest and starts `skep init FILE` as the first process in there ([`boot`]);
//! that one mounts the node's file systems ([`root`]) and supervises ([`run`], [`supervisor`]).
//! On a real machine `skep init FILE` with a node file without `machine` supervises and nothing else.

pub(crate) mod boot;
pub(crate) mod node_file;
pub(crate) mod root;
pub(crate) mod run;
pub(crate) mod supervisor;
