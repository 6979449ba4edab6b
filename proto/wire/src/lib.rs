//! The gRPC contracts between processes, generated from .proto files; conversions to model live here only.
//!
//! Map: [`agent`] is what CNI and `skep status` ask of an agent, [`proxy`] is what an agent tells the node's proxy,
//! with [`dns`] turning those messages into `skep-model` nouns and back; [`socket`] is how both meet on unix sockets.

pub mod cri;
pub mod dns;
pub mod socket;

/// `proto/agent.proto`: CNI verbs and the agent's report.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    unreachable_pub,
    reason = "generated; the .proto file holds the documentation"
)]
pub mod agent {
    tonic::include_proto!("skep.agent.v1");
}

/// `proto/proxy.proto`: the DNS view from agent to proxy.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    unreachable_pub,
    reason = "generated; the .proto file holds the documentation"
)]
pub mod proxy {
    tonic::include_proto!("skep.proxy.v1");
}
