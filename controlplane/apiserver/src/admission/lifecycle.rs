//! NamespaceLifecycle: nothing is created where there is no namespace or where it is going away, and the namespaces
//! the cluster lives in stay.

use crate::admission::{Operation, Request};
use crate::meta;
use crate::state::State;
use crate::status::{ApiError, ApiResult};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Creates need a living namespace.
pub fn check(state: &State, request: &Request<'_>) -> ApiResult<()> {
    let Some(namespace) = request.target.namespace.as_deref() else { return Ok(()) };
    if request.operation != Operation::Create {
        return Ok(());
    }
    let Some(object) = state.store.value("", "namespaces", None, namespace) else {
        return Err(ApiError::not_found("", "namespaces", namespace));
    };
    let terminating = object["status"]["phase"] == "Terminating" || meta::is_deleting(&object);
    if terminating {
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let said = format!("namespace {namespace} is being terminated");
        return Err(request.target.forbidden(&why).cause(
            "NamespaceTerminating",
            "metadata.namespace",
            &said,
        ));
    }
    Ok(())
}

/// Some namespaces cannot be deleted.
pub fn check_deletion(request: &Request<'_>) -> ApiResult<()> {
    let namespaces = request.target.is("", "namespaces");
    if request.operation == Operation::Delete && namespaces && IMMORTAL.contains(&request.target.name()) {
        return Err(request.target.forbidden("this namespace may not be deleted"));
    }
    Ok(())
}
