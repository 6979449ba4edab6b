//! The controllers: each a pure plan and a thin shell.
//!
//! Every controller is a folder with `plan.rs` (observed objects and the time in, commands out; no I/O, no clock) and
//! `controller.rs` (gather, plan, apply, status). [`run`] wires them to shared informers and work queues.

mod claim;
mod config;
mod context;
mod csr;
mod daemonset;
mod deployment;
mod discovery;
mod disruption;
mod endpointslice;
mod error;
mod expectations;
mod gc;
mod job;
mod manager;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod owner;
mod pod_control;
mod pod_gc;
mod pod_owner;
mod pods;
mod replicaset;
mod revisions;
mod service_account;
mod statefulset;
mod template_hash;
mod volume;

pub use config::ControllersConfig;
pub use manager::run;
