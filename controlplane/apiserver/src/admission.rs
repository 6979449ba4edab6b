//! Admission: mutate, then validate. Each plugin is a module; the two lists below are the order in force.
//!
//! Places kept for what comes later, in upstream's order: mutating webhooks and mutating policies end [`mutate`];
//! LimitRanger stands before priority in [`mutate`]; PodSecurity, validating policies, validating webhooks and, last,
//! ResourceQuota belong into [`validate`].

mod lifecycle;
mod node_restriction;
mod node_taint;
mod pod;
mod priority;
mod runtime_class;
mod service_account;
mod signing;
mod storage_class;

use serde_json::Value;

use crate::context::{Context, WriteOptions};
use crate::rest::Target;
use crate::state::State;
use crate::status::ApiResult;
use crate::user::UserInfo;

/// What is done to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It comes into being.
    Create,
    /// It changes, or its status or another part does.
    Update,
    /// It is deleted.
    Delete,
}

/// One write on its way through admission.
pub struct Request<'a> {
    /// Who writes.
    pub user: &'a UserInfo,
    /// What is written.
    pub target: &'a Target,
    /// How.
    pub operation: Operation,
    /// Parameters of the write.
    pub options: &'a WriteOptions,
    /// The request itself.
    pub context: &'a Context,
}

impl Request<'_> {
    /// Whether this creates an object of a resource.
    fn creates(&self, group: &str, plural: &str) -> bool {
        self.operation == Operation::Create
            && self.target.subresource.is_none()
            && self.target.is(group, plural)
    }
}

/// Completes an object before it is validated.
pub fn mutate(
    state: &State,
    request: &Request<'_>,
    object: &mut Value,
    old: Option<&Value>,
) -> ApiResult<()> {
    lifecycle::check(state, request)?;
    signing::fill_requester(request, object, old);
    if request.creates("", "pods") {
        service_account::mutate(state, request, object)?;
        priority::mutate(state, request, object)?;
        pod::add_default_tolerations(object);
        runtime_class::mutate(state, request, object)?;
    }
    if request.operation == Operation::Update
        && request.target.subresource.is_none()
        && request.target.is("", "pods")
    {
        pod::add_default_tolerations(object);
    }
    if request.creates("", "nodes") {
        node_taint::mutate(object);
    }
    if request.creates("", "persistentvolumeclaims") {
        storage_class::mutate(state, object);
    }
    Ok(())
}

/// Has the last word on an object that is valid in itself. `object` is absent for deletions.
pub fn validate(
    state: &State,
    request: &Request<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> ApiResult<()> {
    lifecycle::check_deletion(request)?;
    node_restriction::validate(state, request, object, old)?;
    if let Some(object) = object {
        priority::validate(state, request, object)?;
        crate::authz::escalation::validate(state, request, object, old)?;
        signing::validate(state, request, object, old)?;
    }
    Ok(())
}
