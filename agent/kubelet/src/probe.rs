//! Probes: the thresholds ([`math`], pure), the attempts ([`attempt`]) and one task per container and probe
//! ([`task`]).

pub(crate) mod attempt;
pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod math;
pub(crate) mod task;
