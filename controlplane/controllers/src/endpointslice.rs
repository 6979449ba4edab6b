//! EndpointSlices (and the legacy Endpoints object) of Services with a selector.
//!
//! * `endpoint`: what a pod contributes; * `plan`: packing endpoints into slices with little churn;
//! * `legacy`: the Endpoints object; * `controller`: the shell.

mod controller;
mod endpoint;
mod legacy;
mod plan;

pub(crate) use controller::EndpointSliceController;
