//! Errors as runtimes read them: a code of the specification, a message, details.

use std::{error::Error, fmt::Write as _};

use serde_json::json;
use skep_routing::RoutingError;
use skep_wire::socket::SocketError;
use tonic::{Code, Status};

use crate::result;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The configuration asks for a version that this plugin does not speak.
    #[error("the CNI version {0} is not supported; use one of {list}", list = result::SUPPORTED.join(", "))]
    Version(String),
    /// A variable is absent or wrong.
    #[error("the environment variable {name} is {value:?}")]
    Environment {
        /// Which.
        name: &'static str,
        /// What it holds.
        value: String,
    },
    /// Standard input or the process itself failed.
    #[error("cannot read the configuration")]
    Input(#[source] std::io::Error),
    /// Standard input is no configuration.
    #[error("the configuration does not parse")]
    Decode(#[source] serde_json::Error),
    /// The agent does not answer.
    #[error("the Skep agent of this node does not answer; is its pod running?")]
    Unreachable(#[source] SocketError),
    /// The agent took too long.
    #[error("the Skep agent did not answer within {0} seconds")]
    TimedOut(u64),
    /// The agent refused.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// The loopback device could not be brought up.
    #[error("the loopback device cannot be brought up")]
    Loopback(#[source] RoutingError),
}

impl Failure {
    /// A variable that is absent or wrong.
    pub(crate) fn environment(name: &'static str, value: &str) -> Self {
        Failure::Environment { name, value: value.into() }
    }

    /// The number that the specification gives the situation; from 100 on they are this plugin's own.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Failure::Version(_) => 1,
            Failure::Environment { .. } => 4,
            Failure::Input(_) => 5,
            Failure::Decode(_) => 6,
            Failure::Unreachable(_) | Failure::TimedOut(_) => 11,
            Failure::Loopback(_) => 999,
            // A status with a cause was made on this side: the connection broke while the agent worked on the call.
            Failure::Refused(status) if status.source().is_some() => 11,
            Failure::Refused(status) => match status.code() {
                Code::NotFound => 3,
                Code::InvalidArgument => 7,
                Code::Unavailable | Code::DeadlineExceeded | Code::Aborted => 11,
                Code::ResourceExhausted => 100,
                Code::FailedPrecondition => 101,
                _ => 999,
            },
        }
    }

    /// Whether the same call may succeed in a moment.
    pub(crate) fn is_transient(&self) -> bool {
        self.code() == 11
    }

    /// The error object on standard output.
    pub(crate) fn to_json(&self, version: &str) -> String {
        let mut details = String::new();
        let mut cause = self.source();
        while let Some(error) = cause {
            let separator = if details.is_empty() { "" } else { ": " };
            // Writing to a string cannot fail.
            let _ = write!(details, "{separator}{error}");
            cause = error.source();
        }
        json!({"cniVersion": version, "code": self.code(), "msg": self.to_string(), "details": details})
            .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_object_names_code_message_and_causes() {
        let failure = Failure::Decode(serde_json::from_str::<u8>("x").unwrap_err());
        let shown: serde_json::Value = serde_json::from_str(&failure.to_json("1.0.0")).unwrap();
        assert_eq!((shown["code"].as_u64(), shown["cniVersion"].as_str()), (Some(6), Some("1.0.0")));
        assert!(shown["details"].as_str().unwrap().contains("line 1"));
    }

    #[test]
    fn an_exhausted_range_is_not_retried_and_an_absent_agent_is() {
        assert!(!Failure::Refused(Box::new(Status::resource_exhausted("x"))).is_transient());
        assert!(Failure::Refused(Box::new(Status::unavailable("x"))).is_transient());
        assert!(Failure::TimedOut(30).is_transient());
    }

    #[test]
    fn a_connection_that_breaks_under_a_call_is_tried_again() {
        let broken = Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::BrokenPipe)));
        assert!(Failure::Refused(Box::new(broken)).is_transient());
        assert!(!Failure::Refused(Box::new(Status::internal("no such device"))).is_transient());
    }
}
