//! `pods/binding` (and the older `bindings`): puts a pod on a node, once.

use http::StatusCode;
use serde_json::{Value, json};

use crate::context::Context;
use crate::meta;
use crate::respond::{self, HttpResponse};
use crate::rest::Target;
use crate::rest::update::{Part, write};
use crate::state::State;
use crate::status::{ApiError, ApiResult, Cause};

/// Answers `create`.
pub async fn create(state: &State, context: &Context, target: &Target) -> ApiResult<HttpResponse> {
    let options = context.write_options("CreateOptions")?;
    let binding = super::pod_parts::decode(state, context, "", "v1", "Binding")?;
    let registry = state.registry.snapshot();
    let pods = registry.lookup("", "v1", "pods").ok_or_else(|| ApiError::internal("pods are not served"))?;
    let name = target.name.clone().unwrap_or_else(|| meta::text(&binding, "name").to_owned());
    if target.name.is_some() && !matches!(meta::text(&binding, "name"), n if n.is_empty() || n == name) {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
    }
    let node = checked_node(&binding, &name)?;
    let pod =
        Target { resource: pods, namespace: target.namespace.clone(), name: Some(name), subresource: None };
    let bind = |current: &Value| bound(&pod, &binding, &node, current);
    write(state, context, &pod, &options, Part::Settled, bind).await?;
    let mut status = respond::success();
    status["code"] = StatusCode::CREATED.as_u16().into();
    Ok(respond::document(StatusCode::CREATED, context.accept.encoding, &status))
}

fn checked_node(binding: &Value, name: &str) -> ApiResult<String> {
    let refuse = |cause| Err(ApiError::invalid("", "Binding", name, vec![cause]));
    let kind = binding["target"]["kind"].as_str().unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        let message = format!("Unsupported value: {kind:?}: supported values: \"Node\", \"<empty>\"");
        return refuse(Cause::new("FieldValueNotSupported", "target.kind", message));
    }
    match binding["target"]["name"].as_str().unwrap_or_default() {
        "" => refuse(Cause::new("FieldValueRequired", "target.name", "Required value")),
        node => Ok(node.to_owned()),
    }
}

/// The pod after the binding; refused when it runs somewhere already or is not to be scheduled yet.
fn bound(target: &Target, binding: &Value, node: &str, pod: &Value) -> ApiResult<Value> {
    let refuse = |why: String| Err(ApiError::conflict("", "pods/binding", target.name(), &why));
    let wanted = meta::text(binding, "uid");
    if !wanted.is_empty() && wanted != meta::text(pod, "uid") {
        let uid = meta::text(pod, "uid");
        return refuse(format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
        ));
    }
    if meta::is_deleting(pod) {
        return refuse(format!("pod {} is being deleted, cannot be assigned to a host", target.name()));
    }
    let present = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if !present.is_empty() {
        return refuse(format!("pod {} is already assigned to node {present:?}", target.name()));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|g| !g.is_empty()) {
        return refuse(format!("pod {} has non-empty .spec.schedulingGates", target.name()));
    }
    let mut new = pod.clone();
    meta::clear(&mut new, "resourceVersion");
    new["spec"]["nodeName"] = node.into();
    for map in ["annotations", "labels"] {
        for (key, value) in binding["metadata"][map].as_object().into_iter().flatten() {
            if !new["metadata"][map].is_object() {
                new["metadata"][map] = json!({});
            }
            new["metadata"][map][key] = value.clone();
        }
    }
    mark_scheduled(&mut new);
    Ok(new)
}

fn mark_scheduled(pod: &mut Value) {
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": meta::now(),
    });
    match pod["status"]["conditions"].as_array_mut() {
        Some(list) => match list.iter_mut().find(|c| c["type"] == "PodScheduled") {
            Some(present) if present["status"] == "True" => {}
            Some(present) => *present = condition,
            None => list.push(condition),
        },
        None => pod["status"]["conditions"] = json!([condition]),
    }
}
