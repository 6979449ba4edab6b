//! Nodes that stop answering: conditions, taints, and what happens to their pods.
//!
//! * `health`: when a node counts as lost; * `taints`: the taints that follow from its state; * `eviction`: which pods
//!   leave and when; * `controller`: the shell.

mod controller;
mod eviction;
mod health;
mod taints;

pub(crate) use controller::NodeLifecycleController;
