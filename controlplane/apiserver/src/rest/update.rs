//! `update`, and the read-change-commit loop that `patch` and the subresources share.

use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;
use skep_storage::{Object, Op};

use crate::admission::{self, Operation, Request};
use crate::apply::{self, managers::Identity};
use crate::context::{Context, WriteOptions};
use crate::meta;
use crate::respond::HttpResponse;
use crate::rest::create::{create_value, decode_body};
use crate::rest::{Target, invalid, read};
use crate::shape;
use crate::state::State;
use crate::status::{ApiError, ApiResult, Cause};
use crate::store::{self, WriteError};

/// Attempts to write over other writers before giving up.
const ATTEMPTS: usize = 10;

/// Which part of the object a write may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status.
    Main,
    /// The status alone.
    Status,
    /// Whatever the subresource's own code has already settled; only validated as a whole.
    Settled,
}

/// The outcome of a write.
pub enum Written {
    /// The object as stored.
    Stored(Arc<Object>),
    /// The object as it would have been stored.
    Dry(Value),
    /// The write removed the last thing that held a deletion back.
    Gone(Value),
}

impl Written {
    /// Answers with the object.
    pub fn answer(self, context: &Context, target: &Target) -> ApiResult<HttpResponse> {
        match self {
            Self::Stored(object) => shape::stored(context, &target.resource, StatusCode::OK, &object),
            Self::Dry(object) | Self::Gone(object) => {
                shape::value(context, &target.resource, StatusCode::OK, object)
            }
        }
    }

    /// The object as a value.
    pub fn value(self, target: &Target) -> ApiResult<Value> {
        match self {
            Self::Stored(object) => store::served(&target.resource, &object),
            Self::Dry(object) | Self::Gone(object) => Ok(object),
        }
    }
}

/// Answers `update` of an object or of its status.
pub async fn put(state: &State, context: &Context, target: &Target) -> ApiResult<HttpResponse> {
    let options = context.write_options("UpdateOptions")?;
    let mut body = decode_body(context, target, &options)?;
    meta::settle_namespace(&mut body, target.resource.namespaced, target.namespace.as_deref())?;
    check_name(&body, target)?;
    let part = if target.subresource.as_deref() == Some("status") { Part::Status } else { Part::Main };
    target.resource.default(&mut body);
    if part == Part::Main && read::find(&state.store, target).is_err() && creates_on_update(target) {
        return create_on_update(state, context, target, &options, body).await;
    }
    let written = write(state, context, target, &options, part, |_current| Ok(body.clone())).await?;
    written.answer(context, target)
}

fn check_name(body: &Value, target: &Target) -> ApiResult<()> {
    let name = meta::text(body, "name");
    if name.is_empty() {
        return Err(ApiError::bad_request(
            "the object provided is unrecognized: metadata.name must be set on an update",
        ));
    }
    if name != target.name() {
        let message =
            format!("the name of the object ({name}) does not match the name on the URL ({})", target.name());
        return Err(ApiError::bad_request(message));
    }
    Ok(())
}

async fn create_on_update(
    state: &State,
    context: &Context,
    target: &Target,
    options: &WriteOptions,
    mut body: Value,
) -> ApiResult<HttpResponse> {
    let uid = meta::text(&body, "uid");
    if !uid.is_empty() || !matches!(meta::text(&body, "resourceVersion"), "" | "0") {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: ");
        return Err(ApiError::conflict(&target.resource.group, &target.resource.plural, target.name(), &why));
    }
    meta::clear(&mut body, "resourceVersion");
    create_value(state, context, target, options, body).await
}

/// Resources whose `update` creates what is absent.
fn creates_on_update(target: &Target) -> bool {
    let resource = &target.resource;
    matches!(
        (&*resource.group, &*resource.plural),
        ("", "endpoints" | "events" | "limitranges" | "services")
            | ("events.k8s.io", "events")
            | ("rbac.authorization.k8s.io", _)
            | ("coordination.k8s.io", "leases")
            | ("node.k8s.io", "runtimeclasses")
    )
}

/// Reads, changes, validates and commits until nobody else came in between. `change` gets the object in the
/// target's version and returns the new one.
pub async fn write<F>(
    state: &State,
    context: &Context,
    target: &Target,
    options: &WriteOptions,
    part: Part,
    change: F,
) -> ApiResult<Written>
where
    F: Fn(&Value) -> ApiResult<Value>,
{
    let request = Request { user: &context.user, target, operation: Operation::Update, options, context };
    for _attempt in 0..ATTEMPTS {
        let current = read::find(&state.store, target)?;
        let old = store::served(&target.resource, &current)?;
        let new = change(&old)?;
        check_preconditions(target, &new, &old, part)?;
        match attempt(state, &request, part, &current, &old, new).await {
            Err(Attempt::Again) => continue,
            Err(Attempt::Failed(error)) => return Err(error),
            Ok(written) => return Ok(written),
        }
    }
    Err(ApiError::stale(&target.resource.group, &target.resource.plural, target.name()))
}

enum Attempt {
    Again,
    Failed(ApiError),
}

impl From<ApiError> for Attempt {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

fn check_preconditions(target: &Target, new: &Value, old: &Value, part: Part) -> ApiResult<()> {
    let resource = &target.resource;
    let conflict = |why: &str| ApiError::conflict(&resource.group, &resource.plural, target.name(), why);
    let (wanted, actual) = (meta::text(new, "uid"), meta::text(old, "uid"));
    if !wanted.is_empty() && wanted != actual {
        let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {actual}");
        return Err(conflict(&why));
    }
    match store::revision(meta::text(new, "resourceVersion"))? {
        Some(_) if meta::text(new, "resourceVersion") != meta::text(old, "resourceVersion") => {
            Err(ApiError::stale(&resource.group, &resource.plural, target.name()))
        }
        None if part == Part::Main && !resource.allows_unconditional_update() => {
            let message = "Invalid value: 0: must be specified for an update";
            let cause = Cause::new("FieldValueInvalid", "metadata.resourceVersion", message);
            Err(ApiError::invalid(&resource.group, &resource.plural, target.name(), vec![cause]))
        }
        _ => Ok(()),
    }
}

async fn attempt(
    state: &State,
    request: &Request<'_>,
    part: Part,
    current: &Arc<Object>,
    old: &Value,
    mut new: Value,
) -> Result<Written, Attempt> {
    let (context, target, resource) = (request.context, request.target, &request.target.resource);
    let generation = new["metadata"]["generation"].clone();
    meta::keep_system_fields(&mut new, old);
    if part == Part::Settled && generation.is_i64() {
        meta::set(&mut new, "generation", generation);
    }
    admission::mutate(state, request, &mut new, Some(old))?;
    check_finalizers(target, &new, old)?;
    let mut extra = Vec::new();
    match part {
        Part::Main => {
            resource.prepare_update(&mut new, old);
            extra = state.services.on_update(state, target, &mut new, old)?;
            invalid(resource, target.name(), resource.validate_update(&new, old))?;
        }
        Part::Status => {
            resource.prepare_status_update(&mut new, old);
            invalid(resource, target.name(), resource.validate_status_update(&new, old))?;
        }
        Part::Settled => {}
    }
    if !request.options.managed {
        track(request, old, &mut new);
    }
    admission::validate(state, request, Some(&new), Some(old))?;
    resource.warnings(&new).into_iter().for_each(|w| context.warn(w));
    meta::order(&mut new);
    meta::set(&mut new, "resourceVersion", current.revision().to_string());
    if deletes(target, &new, old) {
        return remove(state, request, current, new).await;
    }
    if request.options.dry_run {
        return Ok(Written::Dry(new));
    }
    let value = resource.canonical(&new);
    if extra.is_empty() && value == current.stored() {
        return Ok(Written::Stored(Arc::clone(current)));
    }
    let mut ops = vec![Op::Put { key: current.key().clone(), value, expect: store::unchanged(current) }];
    ops.append(&mut extra);
    match state.commit(ops).await {
        Ok(committed) => match committed.objects.first().cloned().flatten() {
            Some(object) => Ok(Written::Stored(object)),
            None => Err(ApiError::internal("the written object is not in the cache").into()),
        },
        Err(WriteError::Conflict(_)) => Err(Attempt::Again),
        Err(WriteError::Api(error)) => Err(error.into()),
    }
}

/// Keeps account of who owns what, for objects that have been applied.
fn track(request: &Request<'_>, old: &Value, new: &mut Value) {
    let identity = Identity {
        manager: request.options.manager.clone(),
        operation: "Update".to_owned(),
        api_version: request.target.resource.api_version(),
        subresource: request.target.subresource.clone(),
    };
    apply::track(old, new, request.target.resource.schema().root(), &identity, &meta::now());
}

/// No finalizer may be added once deletion has begun.
fn check_finalizers(target: &Target, new: &Value, old: &Value) -> ApiResult<()> {
    if !meta::is_deleting(old) {
        return Ok(());
    }
    let before = meta::finalizers(old);
    let added: Vec<String> = meta::finalizers(new).into_iter().filter(|f| !before.contains(f)).collect();
    if added.is_empty() {
        return Ok(());
    }
    let message = format!(
        "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
    );
    let cause = Cause::new("FieldValueForbidden", "metadata.finalizers", message);
    Err(ApiError::invalid(&target.resource.group, &target.resource.kind, target.name(), vec![cause]))
}

/// Whether this update completes a deletion: it has begun, nothing holds it back and no grace is left.
fn deletes(target: &Target, new: &Value, old: &Value) -> bool {
    let held = !meta::finalizers(new).is_empty()
        || (target.is("", "namespaces") && !meta::strings(&new["spec"]["finalizers"]).is_empty());
    let grace = old["metadata"]["deletionGracePeriodSeconds"].as_i64();
    meta::is_deleting(old) && !held && grace.unwrap_or(0) == 0
}

async fn remove(
    state: &State,
    request: &Request<'_>,
    current: &Arc<Object>,
    new: Value,
) -> Result<Written, Attempt> {
    if request.options.dry_run {
        return Ok(Written::Gone(new));
    }
    let mut ops = vec![Op::Delete { key: current.key().clone(), expect: store::unchanged(current) }];
    ops.extend(state.services.on_delete(state, request.target, &new)?);
    match state.commit(ops).await {
        Ok(_) => Ok(Written::Gone(new)),
        Err(WriteError::Conflict(_)) => Err(Attempt::Again),
        Err(WriteError::Api(error)) => Err(error.into()),
    }
}
