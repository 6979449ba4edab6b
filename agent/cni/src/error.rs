//! What a CNI runtime is told when a verb fails: a code of the specification, a message, and what to do.

use std::io;

use serde_json::{Value, json};
use tonic::Code;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// The runtime speaks a version that we do not.
    #[error("CNI version {0:?} is not supported")]
    Version(String),
    /// A variable is missing or makes no sense.
    #[error("the variable {name} {problem}")]
    Environment {
        /// The variable.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The network's configuration does not decode.
    #[error("the network configuration on stdin is not valid: {0}")]
    Config(#[from] serde_json::Error),
    /// A file or process operation failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The agent is not there.
    #[error("the node's agent does not answer at {socket}: {reason}")]
    Unreachable {
        /// Its socket.
        socket: String,
        /// What happened.
        reason: String,
    },
    /// The agent refused.
    #[error("{0}")]
    Refused(String, Code),
}

impl CniError {
    /// The code: those below 100 are the specification's, the others ours.
    fn code(&self) -> u32 {
        match self {
            CniError::Version(_) => 1,
            CniError::Environment { .. } => 4,
            CniError::Io { .. } => 5,
            CniError::Config(_) => 6,
            CniError::Unreachable { .. } => 11,
            CniError::Refused(_, code) => match code {
                Code::NotFound => 3,
                Code::InvalidArgument => 7,
                Code::Unavailable | Code::DeadlineExceeded => 11,
                Code::ResourceExhausted => 100,
                Code::FailedPrecondition => 101,
                _ => 999,
            },
        }
    }

    /// What the operator can do about it.
    fn details(&self) -> &'static str {
        match self.code() {
            1 => "the versions that VERSION lists are supported",
            4 | 6 | 7 => "the runtime or the conflist is misconfigured; the agent writes the conflist itself",
            11 => "see the log of the skep-agent pod on this node; the runtime tries again",
            100 => "the node's pod CIDR has no free address; quarantined ones come back within minutes",
            _ => "see the log of the skep-agent pod on this node",
        }
    }

    /// The error object of the specification.
    pub fn to_json(&self, version: &str) -> Value {
        json!({"cniVersion": version, "code": self.code(), "msg": self.to_string(), "details": self.details()})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exhausted_node_says_so_and_a_missing_agent_asks_for_a_retry() {
        let full = CniError::Refused("no free address in 10.244.1.0/24".into(), Code::ResourceExhausted);
        let shown = full.to_json("1.0.0");
        assert_eq!((shown["code"].as_u64(), shown["cniVersion"].as_str()), (Some(100), Some("1.0.0")));
        let gone = CniError::Unreachable { socket: "/run/skep/agent.sock".into(), reason: "refused".into() };
        assert_eq!(gone.to_json("1.1.0")["code"], 11);
    }
}
