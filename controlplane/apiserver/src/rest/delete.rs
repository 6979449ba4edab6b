//! `delete` and `deletecollection`: preconditions, grace, finalizers and propagation decide between marking an object
//! and removing it. The decision is [`plan`], which is pure.

use std::sync::Arc;

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use skep_storage::{Object, Op};

use crate::admission::{self, Operation, Request};
use crate::context::{Context, WriteOptions};
use crate::list_options::ListOptions;
use crate::meta;
use crate::respond::{self, HttpResponse};
use crate::rest::delete_options::{DeleteOptions, Propagation};
use crate::rest::{Target, read};
use crate::shape;
use crate::state::State;
use crate::status::{ApiError, ApiResult};
use crate::store::{self, WriteError};

const ATTEMPTS: usize = 10;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
const DEFAULT_GRACE: i64 = 30;

/// What a deletion does to an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// It goes at once; the object as it leaves.
    Remove(Value),
    /// It is marked and waits for finalizers or grace.
    Mark(Value),
    /// It is already on its way and nothing changes.
    Nothing(Value),
}

/// What a deletion did.
pub struct Deleted {
    /// The object, marked or as it left.
    pub object: Value,
    /// Whether it is gone.
    pub gone: bool,
}

/// Answers `delete`.
pub async fn delete(state: &State, context: &Context, target: &Target) -> ApiResult<HttpResponse> {
    let options = DeleteOptions::read(context)?;
    let done = delete_object(state, context, target, &options).await?;
    answer(context, target, done)
}

fn answer(context: &Context, target: &Target, done: Deleted) -> ApiResult<HttpResponse> {
    let resource = &target.resource;
    if done.gone && !returns_object(target) {
        let uid = meta::text(&done.object, "uid");
        let status = respond::deleted(&resource.group, &resource.plural, target.name(), uid);
        return Ok(respond::document(StatusCode::OK, context.accept.encoding, &status));
    }
    shape::value(context, resource, StatusCode::OK, done.object)
}

/// Resources whose deletion answers with the object instead of a Status.
fn returns_object(target: &Target) -> bool {
    let resource = &target.resource;
    matches!(
        (&*resource.group, &*resource.plural),
        (
            "",
            "pods"
                | "services"
                | "serviceaccounts"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "podtemplates"
                | "replicationcontrollers"
                | "resourcequotas"
                | "namespaces"
        ) | ("storage.k8s.io", "storageclasses" | "csidrivers" | "csinodes" | "volumeattachments")
    )
}

/// Deletes one object; shared with eviction and collections.
pub async fn delete_object(
    state: &State,
    context: &Context,
    target: &Target,
    options: &DeleteOptions,
) -> ApiResult<Deleted> {
    let write_options = WriteOptions {
        dry_run: options.dry_run,
        validation: skep_registry::FieldValidation::Ignore,
        manager: String::new(),
        managed: false,
    };
    let request = Request {
        user: &context.user,
        target,
        operation: Operation::Delete,
        options: &write_options,
        context,
    };
    for _attempt in 0..ATTEMPTS {
        let current = read::find(&state.store, target)?;
        let old = store::served(&target.resource, &current)?;
        check_preconditions(target, options, &old)?;
        admission::validate(state, &request, None, Some(&old))?;
        let plan = plan(target, options, old, Timestamp::now());
        match carry_out(state, target, options, &current, plan).await {
            Ok(done) => return Ok(done),
            Err(WriteError::Conflict(_)) => {}
            Err(WriteError::Api(error)) => return Err(error),
        }
    }
    Err(ApiError::stale(&target.resource.group, &target.resource.plural, target.name()))
}

async fn carry_out(
    state: &State,
    target: &Target,
    options: &DeleteOptions,
    current: &Arc<Object>,
    plan: Plan,
) -> Result<Deleted, WriteError> {
    let expect = store::unchanged(current);
    match plan {
        Plan::Nothing(object) => Ok(Deleted { object, gone: false }),
        Plan::Mark(object) if options.dry_run => Ok(Deleted { object, gone: false }),
        Plan::Remove(object) if options.dry_run => Ok(Deleted { object, gone: true }),
        Plan::Mark(object) => {
            let value = target.resource.canonical(&object);
            let committed = state.commit(vec![Op::Put { key: current.key().clone(), value, expect }]).await?;
            let stored = committed.objects.first().cloned().flatten();
            let object = match stored {
                Some(stored) => store::served(&target.resource, &stored).map_err(WriteError::Api)?,
                None => object,
            };
            Ok(Deleted { object, gone: false })
        }
        Plan::Remove(object) => {
            let mut ops = vec![Op::Delete { key: current.key().clone(), expect }];
            ops.extend(state.services.on_delete(state, target, &object).map_err(WriteError::Api)?);
            state.commit(ops).await?;
            Ok(Deleted { object, gone: true })
        }
    }
}

fn check_preconditions(target: &Target, options: &DeleteOptions, old: &Value) -> ApiResult<()> {
    let conflict = |why: String| {
        ApiError::conflict(&target.resource.group, &target.resource.plural, target.name(), &why)
    };
    let (uid, version) = (meta::text(old, "uid"), meta::text(old, "resourceVersion"));
    if let Some(wanted) = options.uid.as_deref().filter(|w| *w != uid) {
        let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}");
        return Err(conflict(why));
    }
    if let Some(wanted) = options.resource_version.as_deref().filter(|w| *w != version) {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {version}"
        );
        return Err(conflict(why));
    }
    Ok(())
}

/// Decides what deleting the object at that time means.
pub fn plan(target: &Target, options: &DeleteOptions, mut object: Value, now: Timestamp) -> Plan {
    let mut finalizers = propagated(target, options, &object);
    let changed = finalizers != meta::finalizers(&object);
    meta::set_finalizers(&mut object, &finalizers);
    let grace = if target.is("", "pods") { pod_grace(options, &object) } else { 0 };
    let namespace = target.is("", "namespaces");
    if namespace {
        object["status"]["phase"] = "Terminating".into();
    }
    if target.is("apiextensions.k8s.io", "customresourcedefinitions") && !meta::is_deleting(&object) {
        finalizers = crate::custom_resources::terminate(&mut object);
    }
    let held =
        !finalizers.is_empty() || (namespace && !meta::strings(&object["spec"]["finalizers"]).is_empty());
    if meta::is_deleting(&object) {
        let left = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        if grace >= left && (held || left > 0) {
            return if changed { Plan::Mark(object) } else { Plan::Nothing(object) };
        }
        mark(&mut object, grace.min(left), now);
    } else {
        mark(&mut object, grace, now);
        bump_generation(&mut object);
    }
    if held || grace > 0 { Plan::Mark(object) } else { Plan::Remove(object) }
}

fn mark(object: &mut Value, grace: i64, now: Timestamp) {
    let at = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
    let at = Timestamp::from_second(at.as_second()).unwrap_or(at);
    meta::set(object, "deletionTimestamp", at.to_string());
    meta::set(object, "deletionGracePeriodSeconds", grace);
    meta::order(object);
}

fn bump_generation(object: &mut Value) {
    if let Some(generation) = object["metadata"]["generation"].as_i64().filter(|g| *g > 0) {
        meta::set(object, "generation", generation + 1);
    }
}

/// Grace of a pod: what was asked for, else its own; none where no kubelet has to act.
fn pod_grace(options: &DeleteOptions, pod: &Value) -> i64 {
    let finished = matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
    let unscheduled = pod["spec"]["nodeName"].as_str().unwrap_or_default().is_empty();
    if unscheduled || finished {
        return 0;
    }
    let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(DEFAULT_GRACE);
    options.grace_seconds.unwrap_or(own).max(0)
}

/// Finalizers after propagation has its say.
fn propagated(target: &Target, options: &DeleteOptions, object: &Value) -> Vec<String> {
    let mut finalizers = meta::finalizers(object);
    let had = |name: &str| finalizers.iter().any(|f| f == name);
    let orphans_by_default = target.is("batch", "jobs") || target.is("", "replicationcontrollers");
    let (orphan, foreground) = match options.propagation {
        Some(policy) => (policy == Propagation::Orphan, policy == Propagation::Foreground),
        None if had(ORPHAN) => (true, false),
        None if had(FOREGROUND) => (false, true),
        None => (orphans_by_default, false),
    };
    for (name, wanted) in [(ORPHAN, orphan), (FOREGROUND, foreground)] {
        let has = finalizers.iter().any(|f| f == name);
        if wanted && !has {
            finalizers.push(name.to_owned());
        } else if !wanted && has {
            finalizers.retain(|f| f != name);
        }
    }
    finalizers
}

/// Answers `deletecollection`.
pub async fn delete_collection(state: &State, context: &Context, target: &Target) -> ApiResult<HttpResponse> {
    let delete_options = DeleteOptions::read(context)?;
    let options = ListOptions::read(context, &target.resource, false)?;
    let found = read::page(&state.store, target, &options).await?;
    let mut deleted = Vec::with_capacity(found.objects.len());
    for object in &found.objects {
        let one = Target {
            resource: Arc::clone(&target.resource),
            namespace: object.key().namespace().map(str::to_owned),
            name: Some(object.key().name().to_owned()),
            subresource: None,
        };
        match delete_object(state, context, &one, &delete_options).await {
            Ok(done) => deleted.push(done.object),
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let list = shape::list_document(&target.resource, &found.meta, deleted);
    Ok(respond::document(StatusCode::OK, context.accept.encoding, &list))
}
