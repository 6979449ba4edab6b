//! `scale`: the replica count of a workload as an object of its own (`autoscaling/v1 Scale`), for built-ins and for
//! custom resources that name their paths.

use http::StatusCode;
use serde_json::{Map, Value, json};
use skep_registry::Resource;

use crate::context::Context;
use crate::meta;
use crate::respond::{self, HttpResponse};
use crate::rest::update::{Part, write};
use crate::rest::{Target, read};
use crate::state::State;
use crate::status::{ApiError, ApiResult, Cause};
use crate::store;
use crate::subresource::pod_parts;

/// Answers `get`.
pub fn get(state: &State, context: &Context, target: &Target) -> ApiResult<HttpResponse> {
    let object = read::find(&state.store, target)?;
    let scale = scale_of(&target.resource, &store::served(&target.resource, &object)?)?;
    Ok(respond::document(StatusCode::OK, context.accept.encoding, &scale))
}

/// Answers `update` and `patch`.
pub async fn change(state: &State, context: &Context, target: &Target) -> ApiResult<HttpResponse> {
    let options = context.write_options("UpdateOptions")?;
    let patch = (context.info.verb == "patch")
        .then(|| crate::rest::patch::Patch::read(context, target))
        .transpose()?;
    let settle = |current: &Value| {
        let present = scale_of(&target.resource, current)?;
        let asked = match &patch {
            None => pod_parts::decode(state, context, "autoscaling", "v1", "Scale")?,
            Some(patch) => {
                let patched = patch.apply(target.resource.schema(), &present)?;
                pod_parts::decode_value(state, context, patched, "autoscaling", "v1", "Scale")?
            }
        };
        check(target, &asked)?;
        let mut new = current.clone();
        meta::set(&mut new, "resourceVersion", meta::text(&asked, "resourceVersion"));
        let replicas = asked["spec"]["replicas"].as_i64().unwrap_or(0);
        set(&mut new, replicas_path(&target.resource, "specReplicasPath", ".spec.replicas"), replicas.into());
        Ok(new)
    };
    let written = write(state, context, &super::parent(target), &options, Part::Main, settle).await?;
    let scale = scale_of(&target.resource, &written.value(target)?)?;
    Ok(respond::document(StatusCode::OK, context.accept.encoding, &scale))
}

fn check(target: &Target, asked: &Value) -> ApiResult<()> {
    let name = meta::text(asked, "name");
    if !name.is_empty() && name != target.name() {
        let message =
            format!("the name of the object ({name}) does not match the name on the URL ({})", target.name());
        return Err(ApiError::bad_request(message));
    }
    let replicas = asked["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let message = format!("Invalid value: {replicas}: must be greater than or equal to 0");
        let resource = &target.resource;
        let (group, kind, field) = match resource.custom_scale() {
            None => ("autoscaling", "Scale", "spec.replicas"),
            Some(_) => (
                &*resource.group,
                &*resource.kind,
                replicas_path(resource, "specReplicasPath", ".spec.replicas"),
            ),
        };
        let cause = Cause::new("FieldValueInvalid", field, message);
        return Err(ApiError::invalid(group, kind, target.name(), vec![cause]));
    }
    Ok(())
}

fn replicas_path<'a>(resource: &'a Resource, key: &str, builtin: &'a str) -> &'a str {
    resource.custom_scale().and_then(|scale| scale[key].as_str()).unwrap_or(builtin)
}

fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.trim_start_matches('.').split('.').try_fold(object, |value, step| value.get(step))
}

fn set(object: &mut Value, path: &str, value: Value) {
    let mut slot = object;
    for step in path.trim_start_matches('.').split('.') {
        if !slot.is_object() {
            *slot = Value::Object(Map::new());
        }
        slot = &mut slot[step];
    }
    *slot = value;
}

fn scale_of(resource: &Resource, object: &Value) -> ApiResult<Value> {
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata.insert(field.into(), value.clone());
        }
    }
    let count = |key, builtin: &'static str| {
        at(object, replicas_path(resource, key, builtin)).and_then(Value::as_i64)
    };
    let wanted = count("specReplicasPath", ".spec.replicas");
    if wanted.is_none() && !resource.builtin {
        return Err(ApiError::internal("the spec replicas field does not exist"));
    }
    let mut spec = Map::new();
    if let Some(replicas) = wanted.filter(|r| *r != 0) {
        spec.insert("replicas".into(), replicas.into());
    }
    let mut status = json!({"replicas": count("statusReplicasPath", ".status.replicas").unwrap_or(0)});
    if let Some(selector) = selector_of(resource, object).filter(|s| !s.is_empty()) {
        status["selector"] = selector.into();
    }
    Ok(
        json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}),
    )
}

fn selector_of(resource: &Resource, object: &Value) -> Option<String> {
    if let Some(scale) = resource.custom_scale() {
        return at(object, scale["labelSelectorPath"].as_str()?)?.as_str().map(str::to_owned);
    }
    let selector = &object["spec"]["selector"];
    if &*resource.plural == "replicationcontrollers" {
        let pairs = selector.as_object()?.iter();
        let mut terms: Vec<String> =
            pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
        terms.sort();
        return Some(terms.join(","));
    }
    serde_json::from_value(selector.clone())
        .ok()
        .and_then(|typed| skep_api::LabelSelector::from_object(&typed).ok())
        .map(|typed| typed.to_string())
}
