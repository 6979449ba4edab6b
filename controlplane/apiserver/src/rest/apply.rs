//! `patch` with an applied configuration: creates what is absent, else lays the configuration over the live object and
//! goes the way of updates. Ownership is `apply`'s.

use serde_json::Value;
use skep_registry::FieldValidation;

use crate::apply::managers::Identity;
use crate::apply::{Apply, Conflict, typed};
use crate::context::{Context, WriteOptions};
use crate::meta;
use crate::respond::HttpResponse;
use crate::rest::create::create_value;
use crate::rest::update::{Part, write};
use crate::rest::{Target, read};
use crate::state::State;
use crate::status::{ApiError, ApiResult, Cause};

/// Media type of applied configurations.
pub const MEDIA: &str = "application/apply-patch+yaml";

/// Answers an apply of an object or of its status.
pub async fn apply(state: &State, context: &Context, target: &Target) -> ApiResult<HttpResponse> {
    let mut options = context.write_options("PatchOptions")?;
    if context.query.text("fieldManager").is_none() {
        let cause =
            Cause::new("FieldValueRequired", "fieldManager", "Required value: is required for apply patch");
        return Err(ApiError::invalid_option("PatchOptions", cause));
    }
    options.managed = true;
    let config = configuration(context, target)?;
    let status = target.subresource.as_deref() == Some("status");
    if read::find(&state.store, target).is_err() && !status {
        return create(state, context, target, &options, &config).await;
    }
    let part = if status { Part::Status } else { Part::Main };
    let now = meta::now();
    let lay = |live: &Value| laid(context, target, &options, &config, live, &now);
    write(state, context, target, &options, part, lay).await?.answer(context, target)
}

fn identity(target: &Target, options: &WriteOptions) -> Identity {
    Identity {
        manager: options.manager.clone(),
        operation: "Apply".to_owned(),
        api_version: target.resource.api_version(),
        subresource: target.subresource.clone(),
    }
}

/// Reads and checks the configuration.
fn configuration(context: &Context, target: &Target) -> ApiResult<Value> {
    let config: Value = serde_yaml_ng::from_slice(&context.body)
        .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))?;
    let resource = &target.resource;
    let said = |field: &str| config[field].as_str().unwrap_or_default();
    if !config.is_object() || said("apiVersion").is_empty() || said("kind").is_empty() {
        return Err(ApiError::bad_request("an applied configuration names its apiVersion and kind"));
    }
    if said("apiVersion") != resource.api_version() || said("kind") != &*resource.kind {
        let message = format!(
            "the configuration is a {} of {}, the request is for a {} of {}",
            said("kind"),
            said("apiVersion"),
            resource.kind,
            resource.api_version()
        );
        return Err(ApiError::bad_request(message));
    }
    if config["metadata"].get("managedFields").is_some_and(|m| !m.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let name = meta::text(&config, "name");
    if !name.is_empty() && name != target.name() {
        let message =
            format!("the name of the object ({name}) does not match the name on the URL ({})", target.name());
        return Err(ApiError::bad_request(message));
    }
    let config = of_part(config, target);
    if let Some(broken) = typed::broken_list(&config, resource.schema().root()) {
        return Err(ApiError::bad_request(format!("the configuration cannot be applied: {broken}")));
    }
    Ok(config)
}

/// The part of a configuration that the path can change: the status there, everything else here.
fn of_part(mut config: Value, target: &Target) -> Value {
    let Some(members) = config.as_object_mut() else { return config };
    if target.subresource.as_deref() == Some("status") {
        members.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
        if let Some(metadata) = members.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata
                .retain(|name, _| matches!(name.as_str(), "name" | "namespace" | "uid" | "resourceVersion"));
        }
    } else if target.resource.subresource("status").is_some() {
        members.shift_remove("status");
    }
    config
}

fn plan<'a>(
    context: &Context,
    target: &'a Target,
    options: &WriteOptions,
    config: &'a Value,
    now: &'a str,
) -> Apply<'a> {
    Apply {
        config,
        schema: target.resource.schema().root(),
        identity: identity(target, options),
        force: context.query.flag("force"),
        now,
    }
}

async fn create(
    state: &State,
    context: &Context,
    target: &Target,
    options: &WriteOptions,
    config: &Value,
) -> ApiResult<HttpResponse> {
    if !matches!(meta::text(config, "uid"), "") {
        let why = format!(
            "uid mismatch: the provided object specified uid {}, and no existing object was found",
            meta::text(config, "uid")
        );
        return Err(ApiError::conflict(&target.resource.group, &target.resource.plural, target.name(), &why));
    }
    known_fields(target, config)?;
    let mut object = decoded(context, target, options, config.clone())?;
    meta::set(&mut object, "name", target.name());
    let now = meta::now();
    meta::set(&mut object, "managedFields", plan(context, target, options, config, &now).first());
    create_value(state, context, target, options, object).await
}

fn decoded(context: &Context, target: &Target, options: &WriteOptions, value: Value) -> ApiResult<Value> {
    let (object, warnings) = target
        .resource
        .decode_value(value, options.validation)
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    warnings.into_iter().for_each(|w| context.warn(w));
    Ok(object)
}

/// A field nobody knows has no owner either.
fn known_fields(target: &Target, config: &Value) -> ApiResult<()> {
    let refused = |why: &dyn std::fmt::Display| {
        Err(ApiError::bad_request(format!("the configuration cannot be applied: {why}")))
    };
    match target.resource.decode_value(config.clone(), FieldValidation::Warn) {
        Err(error) => refused(&error),
        Ok((_, warnings)) => match warnings.iter().find(|w| w.starts_with("unknown field")) {
            Some(unknown) => refused(unknown),
            None => Ok(()),
        },
    }
}

/// The live object after the apply.
fn laid(
    context: &Context,
    target: &Target,
    options: &WriteOptions,
    config: &Value,
    live: &Value,
    now: &str,
) -> ApiResult<Value> {
    // What is wrong with the configuration should be said of it, not of the merged object.
    known_fields(target, config)?;
    let merged = plan(context, target, options, config, now).onto(live).map_err(|c| conflict(&c))?;
    let mut object = decoded(context, target, options, merged)?;
    if meta::text(config, "resourceVersion").is_empty() {
        meta::clear(&mut object, "resourceVersion");
        meta::set(&mut object, "resourceVersion", meta::text(live, "resourceVersion"));
    }
    meta::settle_namespace(&mut object, target.resource.namespaced, target.namespace.as_deref())?;
    target.resource.default(&mut object);
    Ok(object)
}

fn conflict(conflicts: &[Conflict]) -> ApiError {
    let one = |c: &Conflict| format!("conflict with {:?}: {}", c.manager, c.field);
    let lines: Vec<String> = conflicts.iter().map(one).collect();
    let count = conflicts.len();
    let message = format!(
        "Apply failed with {count} conflict{}: {}",
        if count == 1 { "" } else { "s" },
        lines.join("\n")
    );
    let mut error = ApiError::apply_conflict(message);
    for c in conflicts {
        error = error.cause("FieldManagerConflict", &c.field, &format!("conflict with {:?}", c.manager));
    }
    error
}
