//! PodDisruptionBudgets: how many pods may be evicted now.

mod controller;
mod plan;

pub(crate) use controller::DisruptionController;
