//! What every long-running process needs and none should write twice: log set-up, drain, readiness,
//! backoff, signals and the admin HTTP listener. No domain knowledge lives here.

pub mod admin;
pub mod backoff;
pub mod drain;
pub mod readiness;
pub mod signal;
pub mod telemetry;

pub use backoff::Backoff;
pub use drain::{Drain, DrainTrigger};
pub use readiness::{Readiness, ReadyToken};
