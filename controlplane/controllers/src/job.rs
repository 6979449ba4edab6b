//! Jobs: pods that run to completion.
//!
//! Finished pods are counted while they exist: what somebody deletes by hand is run again. Not here yet: pod failure
//! policies, success policies, and per-index backoff limits.

mod controller;
mod plan;

pub(crate) use controller::JobController;
