//! The pod core: what a pod should be, what the runtime says it is, and what to do next. Pure: no I/O, no
//! clock, no locks; time is a parameter.
//!
//! [`model`] is the pod as the API wants it, [`view`] what the runtime reports, [`memory`] what the kubelet
//! remembers between two looks, [`plan`] turns the three into commands, [`status`] into what users see.

pub(crate) mod admission;
pub(crate) mod backoff;
pub(crate) mod conditions;
pub(crate) mod container_status;
pub(crate) mod ending;
pub(crate) mod memory;
pub(crate) mod model;
pub(crate) mod outcome;
pub(crate) mod plan;
pub(crate) mod qos;
pub(crate) mod running;
pub(crate) mod status;
pub(crate) mod view;

#[cfg(test)]
mod ending_tests;
#[cfg(test)]
mod running_tests;
#[cfg(test)]
pub(crate) mod scene;
#[cfg(test)]
mod status_tests;
