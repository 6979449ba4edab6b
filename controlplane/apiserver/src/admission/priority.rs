//! Priority: a pod's priority comes from its PriorityClass alone, and there is at most one default class.

use serde_json::Value;

use crate::admission::{Operation, Request};
use crate::meta;
use crate::state::State;
use crate::status::{ApiError, ApiResult};

const GROUP: &str = "scheduling.k8s.io";

/// Fills in the priority of a new pod.
pub fn mutate(state: &State, request: &Request<'_>, pod: &mut Value) -> ApiResult<()> {
    let named = pod["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
    let class = match named.as_str() {
        "" => default_class(state),
        name => Some(state.store.value(GROUP, "priorityclasses", None, name).ok_or_else(|| {
            forbidden(request, pod, &format!("no PriorityClass with name {name} was found"))
        })?),
    };
    let value = class.as_ref().and_then(|c| c["value"].as_i64()).unwrap_or(0);
    let policy =
        class.as_ref().and_then(|c| c["preemptionPolicy"].as_str()).unwrap_or("PreemptLowerPriority");
    if let Some(given) = pod["spec"]["priority"].as_i64().filter(|given| *given != value) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        );
        return Err(forbidden(request, pod, &why));
    }
    if let Some(given) = pod["spec"]["preemptionPolicy"].as_str().filter(|given| *given != policy) {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        );
        return Err(forbidden(request, pod, &why));
    }
    let policy = policy.to_owned();
    if let Some(name) = class.as_ref().map(|c| meta::text(c, "name").to_owned()).filter(|n| !n.is_empty()) {
        pod["spec"]["priorityClassName"] = name.into();
    }
    pod["spec"]["priority"] = value.into();
    pod["spec"]["preemptionPolicy"] = policy.into();
    Ok(())
}

fn forbidden(request: &Request<'_>, pod: &Value, why: &str) -> ApiError {
    let resource = &request.target.resource;
    ApiError::forbidden(&resource.group, &resource.plural, meta::text(pod, "name"), why)
}

/// The default class; of several, the least.
fn default_class(state: &State) -> Option<Value> {
    let classes = state.store.values(GROUP, "priorityclasses", None);
    classes.into_iter().filter(|c| c["globalDefault"] == true).min_by_key(|c| c["value"].as_i64())
}

/// A second default class is refused.
pub fn validate(state: &State, request: &Request<'_>, class: &Value) -> ApiResult<()> {
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    if !writes || !request.target.is(GROUP, "priorityclasses") || class["globalDefault"] != true {
        return Ok(());
    }
    let name = meta::text(class, "name");
    match default_class(state) {
        Some(other) if meta::text(&other, "name") != name => {
            let why = format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                meta::text(&other, "name")
            );
            Err(ApiError::forbidden(GROUP, "priorityclasses", name, &why))
        }
        _ => Ok(()),
    }
}
