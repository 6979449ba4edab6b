//! PersistentVolumes and their claims: binding what exists, and keeping what is in use.
//!
//! * `bind`: which volume a claim gets; * `protect`: finalizers that hold what is in use; * `controller`: the shell.
//!
//! Nothing is provisioned or reclaimed here, and classes that bind when a pod is scheduled are left alone: both need
//! volume drivers.

mod bind;
mod controller;
mod protect;

pub(crate) use controller::VolumeController;
