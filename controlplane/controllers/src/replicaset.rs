//! ReplicaSets: as many pods as asked for, never doubled.

mod controller;
mod plan;
mod rank;

pub(crate) use controller::ReplicaSetController;
