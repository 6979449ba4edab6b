//! RuntimeClass: the class a pod names must exist; its overhead and scheduling become the pod's.

use serde_json::{Value, json};

use crate::admission::Request;
use crate::meta;
use crate::state::State;
use crate::status::{ApiError, ApiResult};

/// Applies the class to a new pod.
pub fn mutate(state: &State, request: &Request<'_>, pod: &mut Value) -> ApiResult<()> {
    let name = pod["spec"]["runtimeClassName"].as_str().unwrap_or_default().to_owned();
    let refuse = |pod: &Value, why: &str| {
        let resource = &request.target.resource;
        Err(ApiError::forbidden(&resource.group, &resource.plural, meta::text(pod, "name"), why))
    };
    if name.is_empty() {
        if pod["spec"]["overhead"].as_object().is_some_and(|o| !o.is_empty()) {
            return refuse(
                pod,
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
            );
        }
        return Ok(());
    }
    let Some(class) = state.store.value("node.k8s.io", "runtimeclasses", None, &name) else {
        return refuse(pod, &format!("pod rejected: RuntimeClass \"{name}\" not found"));
    };
    let overhead = &class["overhead"]["podFixed"];
    if pod["spec"]["overhead"].is_object() && pod["spec"]["overhead"] != *overhead {
        return refuse(pod, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead");
    }
    if overhead.is_object() {
        pod["spec"]["overhead"] = overhead.clone();
    }
    for (key, value) in class["scheduling"]["nodeSelector"].as_object().into_iter().flatten() {
        let given = pod["spec"]["nodeSelector"].get(key);
        if given.is_some_and(|g| g != value) {
            return refuse(
                pod,
                &format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {}",
                    given.cloned().unwrap_or_default()
                ),
            );
        }
        if !pod["spec"]["nodeSelector"].is_object() {
            pod["spec"]["nodeSelector"] = json!({});
        }
        pod["spec"]["nodeSelector"][key] = value.clone();
    }
    for toleration in class["scheduling"]["tolerations"].as_array().into_iter().flatten() {
        super::pod::add_toleration(pod, toleration.clone());
    }
    Ok(())
}
