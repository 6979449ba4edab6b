//! Pods that nobody will clean up: on nodes that are gone, unassigned but deleted, finished in great numbers.

mod controller;
mod plan;

pub(crate) use controller::PodGcController;
