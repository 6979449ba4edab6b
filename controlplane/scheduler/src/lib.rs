//! The scheduler: queue, snapshot, framework and plugins; bind and watch are the shell.

mod config;

pub use config::{SchedulerConfig, run};
