//! DaemonSets: one pod on every node that qualifies.
//!
//! * `placement`: which nodes qualify, and the pod for one; * `plan`: pods to create and delete, status;
//! * `update`: replacing pods of an old template; * `controller`: the shell.

mod controller;
mod placement;
mod plan;
mod update;

pub(crate) use controller::DaemonSetController;
