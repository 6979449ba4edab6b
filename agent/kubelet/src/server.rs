//! The kubelet API on :10250: logs, exec, attach, port-forward, pods and stats, for the API server only.

pub(crate) mod container_logs;
pub(crate) mod listen;
pub(crate) mod query;
pub(crate) mod routes;
pub(crate) mod stats;
pub(crate) mod streams;
pub(crate) mod tls;
