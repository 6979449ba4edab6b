//! Why a reconcile did not finish; the work queue retries all of them.

use skep_pki::PkiError;

/// A reconcile that has to be tried again.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The API refused or failed.
    #[error("{0}")]
    Api(#[from] kube::Error),
    /// The object has a selector that cannot be evaluated.
    #[error("selector of {object} cannot be used: {reason}")]
    Selector {
        /// The object.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Some of several independent steps failed; the first failure.
    #[error("{failed} of {total} steps failed, first: {first}")]
    Partial {
        /// Steps that failed.
        failed: usize,
        /// Steps tried.
        total: usize,
        /// The first failure.
        first: Box<ControllerError>,
    },
    /// The cluster CA could not do its part.
    #[error("{0}")]
    Signer(#[from] PkiError),
    /// No pod range is left for a node.
    #[error("no pod range is left in {0}: use a larger cluster CIDR or a longer node mask")]
    RangesExhausted(String),
    /// An object could not be put into JSON.
    #[error("cannot encode: {0}")]
    Encode(#[from] serde_json::Error),
}

/// Turns "does not exist" into `None`: what is gone needs no work.
pub(crate) fn unless_gone<T>(result: Result<T, kube::Error>) -> Result<Option<T>, ControllerError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Folds the results of independent steps: all were tried, the first failure is reported.
pub(crate) fn all_steps(results: Vec<Result<(), ControllerError>>) -> Result<(), ControllerError> {
    let total = results.len();
    let mut failures = results.into_iter().filter_map(Result::err);
    match failures.next() {
        None => Ok(()),
        Some(first) => {
            Err(ControllerError::Partial { failed: 1 + failures.count(), total, first: Box::new(first) })
        }
    }
}
