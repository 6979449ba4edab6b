//! StatefulSets: pods with an identity, one after another.
//!
//! * `identity`: names, hosts and claims of a pod; * `plan`: the next pod to make or remove, status;
//! * `controller`: the shell.

mod controller;
mod identity;
mod plan;

pub(crate) use controller::StatefulSetController;
