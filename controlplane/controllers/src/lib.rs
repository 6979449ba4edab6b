//! The controllers: each a pure plan and a thin shell.
//!
//! Every controller is a folder with `plan.rs` (observed objects and the time in, commands out; no I/O, no clock) and
//! `controller.rs` (gather, plan, apply, status). [`run`] wires them to shared informers and work queues.

mod config;
mod manager;

pub use config::{CertificateSigner, ControllersConfig, RequestedIdentity, SignGrant, SignerError};
pub use manager::run;
