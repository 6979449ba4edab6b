//! Why an attachment could not be made, checked or removed, and how callers are told.

use skep_datapath::{DatapathError, TableError};
use skep_ipam::{IpamError, StateError};
use skep_routing::RoutingError;
use tonic::{Code, Status};

/// Why an attachment failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndpointError {
    /// No address.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// The state could not be kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// The kernel's network side refused.
    #[error(transparent)]
    Routing(#[from] RoutingError),
    /// The kernel's BPF side refused.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The endpoint's row could not be written.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The namespace is the node's own.
    #[error("{0:?} is the node's own network namespace: a hostNetwork pod needs no attachment")]
    OwnNamespace(String),
    /// Another call works on the same attachment.
    #[error("another call for the sandbox {0} is under way")]
    Busy(String),
    /// Nothing is known of the attachment.
    #[error("no attachment of the sandbox {0} is known")]
    Unknown(String),
    /// The attachment is not as it was made.
    #[error("the attachment is broken: {}", .0.join("; "))]
    Broken(Vec<String>),
    /// A device was removed while it was being configured.
    #[error("the device {0} vanished: its namespace was removed meanwhile")]
    Vanished(String),
    /// A worker thread ended early.
    #[error("the address state was not written: the agent is stopping")]
    Stopping,
}

impl From<EndpointError> for Status {
    fn from(error: EndpointError) -> Self {
        let code = match &error {
            EndpointError::Ipam(IpamError::NoRange) | EndpointError::Busy(_) | EndpointError::Stopping => {
                Code::Unavailable
            }
            EndpointError::Ipam(IpamError::Exhausted { .. }) => Code::ResourceExhausted,
            EndpointError::OwnNamespace(_) => Code::InvalidArgument,
            EndpointError::Unknown(_) => Code::NotFound,
            EndpointError::Broken(_) => Code::FailedPrecondition,
            EndpointError::State(_)
            | EndpointError::Routing(_)
            | EndpointError::Datapath(_)
            | EndpointError::Table(_)
            | EndpointError::Vanished(_) => Code::Internal,
        };
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            let inner_text = inner.to_string();
            if !text.ends_with(&inner_text) {
                text = format!("{text}: {inner_text}");
            }
            cause = inner.source();
        }
        Status::new(code, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_learn_the_cause_and_whether_to_try_again() {
        let error =
            RoutingError::Namespace { path: "/x".into(), source: std::io::ErrorKind::NotFound.into() };
        let status = Status::from(EndpointError::from(error));
        assert_eq!(status.code(), Code::Internal);
        assert!(
            status.message().contains("/x") && status.message().contains("not found"),
            "{}",
            status.message()
        );
        assert_eq!(Status::from(EndpointError::Busy("c".into())).code(), Code::Unavailable);
    }
}
