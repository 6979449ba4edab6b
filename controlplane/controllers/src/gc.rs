//! Garbage collection by owner references.
//!
//! * `graph`: who owns whom, from metadata watches of every type; * `plan`: what becomes of one object;
//! * `monitor`: the watches; * `controller`: the shell.
//!
//! An object goes when all its owners are gone. Deleting an owner in the foreground waits for the dependents that block
//! it; orphaning cuts the references first. Before anything is deleted, the object and the absence of its owners are
//! read from the API itself.

mod controller;
mod graph;
mod monitor;
mod plan;

pub(crate) use controller::GarbageCollector;
