//! The scheduler: which node a pod runs on.
//!
//! | module | owns |
//! |---|---|
//! | [`queue`] | pods that wait: active, backing off, unschedulable with hints (pure) |
//! | [`cache`] | nodes with their pods, assumed ones included, kept incrementally (pure) |
//! | [`framework`] | the extension points and what passes between them |
//! | [`plugins`] | one file a rule |
//! | [`algorithm`] | one decision: filter, score, pick (pure) |
//! | [`preemption`] | room for a pod by removing less important ones (pure) |
//! | [`placement`] | taints and node affinity, shared with the DaemonSet controller (pure) |
//! | `driver` | the shell: watches, binding, events, conditions |
//!
//! Not here yet: volume topology, and disruption budgets in preemption.

pub mod algorithm;
pub mod cache;
mod config;
pub mod diagnosis;
mod driver;
pub mod framework;
pub mod node_info;
pub mod placement;
pub mod plugins;
pub mod pod_info;
pub mod preemption;
pub mod queue;
pub mod resources;

pub use config::SchedulerConfig;
pub use driver::run;
