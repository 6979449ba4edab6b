//! Node DNS: the cluster's names, answered on the pod's own node.
//!
//! Map: [`zone`] is what the names mean (pure), [`respond`] turns a query's bytes into a reply or a decision to
//! forward (pure), [`server`] is the UDP and TCP shell, [`upstream`] forwards what is not ours.

pub mod respond;
pub mod server;
pub mod upstream;
pub mod zone;
