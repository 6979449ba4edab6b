//! `pods/eviction`: a deletion that disruption budgets may refuse. The budget's counter goes down in the same
//! transaction as nothing else: it is written first, and only then the pod is deleted.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::{Value, json};

use crate::context::{Context, WriteOptions};
use crate::meta;
use crate::respond::{self, HttpResponse};
use crate::rest::delete::delete_object;
use crate::rest::delete_options::DeleteOptions;
use crate::rest::update::{Part, write};
use crate::rest::{Target, read};
use crate::selector;
use crate::state::State;
use crate::status::{ApiError, ApiResult};
use crate::store;
use crate::subresource::{parent, pod_parts};

const POLICY: &str = "policy";

/// Answers `create`.
pub async fn create(state: &State, context: &Context, target: &Target) -> ApiResult<HttpResponse> {
    let options = context.write_options("CreateOptions")?;
    let mut body = pod_parts::parse(context)?;
    // The older version is the same in every field, and older kubectl drains with it.
    if body["apiVersion"] == "policy/v1beta1" {
        body["apiVersion"] = "policy/v1".into();
    }
    let eviction = pod_parts::decode_value(state, context, body, POLICY, "v1", "Eviction")?;
    let name = meta::text(&eviction, "name");
    if !name.is_empty() && name != target.name() {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut how = DeleteOptions::from_value(&deletion(&eviction), context)?;
    how.dry_run |= options.dry_run;
    let pod = parent(target);
    let object = store::decode(&*read::find(&state.store, &pod)?)?;
    if !ends_anyway(&object) {
        take_from_budgets(state, context, &pod, &object, &how).await?;
    }
    delete_object(state, context, &pod, &how).await?;
    Ok(respond::document(StatusCode::CREATED, context.accept.encoding, &respond::success()))
}

fn deletion(eviction: &Value) -> Value {
    match &eviction["deleteOptions"] {
        Value::Object(options) => Value::Object(options.clone()),
        _ => json!({}),
    }
}

/// Finished and never started pods disrupt nobody.
fn ends_anyway(pod: &Value) -> bool {
    meta::is_deleting(pod)
        || matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"))
}

async fn take_from_budgets(
    state: &State,
    context: &Context,
    target: &Target,
    pod: &Value,
    how: &DeleteOptions,
) -> ApiResult<()> {
    let namespace = target.namespace.as_deref();
    let labels: BTreeMap<String, String> = pod["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()))
        .collect();
    let mut budgets = state.store.values(POLICY, "poddisruptionbudgets", namespace);
    budgets.retain(|b| selector::object_selector_matches(&b["spec"]["selector"], &labels));
    let budget = match budgets.as_slice() {
        [] => return Ok(()),
        [one] => one,
        _ => {
            return Err(ApiError::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    if unready_and_free(pod, budget) {
        return Ok(());
    }
    let registry = state.registry.snapshot();
    let resource = registry
        .lookup(POLICY, "v1", "poddisruptionbudgets")
        .ok_or_else(|| ApiError::internal("disruption budgets are not served"))?;
    let name = meta::text(budget, "name").to_owned();
    let budget = Target {
        resource,
        namespace: target.namespace.clone(),
        name: Some(name),
        subresource: Some("status".into()),
    };
    let options = WriteOptions {
        dry_run: how.dry_run,
        validation: skep_registry::FieldValidation::Ignore,
        manager: String::new(),
        managed: false,
    };
    let pod_name = target.name();
    let take = |current: &Value| taken(current, pod_name);
    write(state, context, &budget, &options, Part::Settled, take).await.map(|_| ())
}

/// A pod that is not ready may go when the budget says so, or when enough others are healthy.
fn unready_and_free(pod: &Value, budget: &Value) -> bool {
    let ready = pod["status"]["conditions"]
        .as_array()
        .is_some_and(|list| list.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
    if ready {
        return false;
    }
    let status = &budget["status"];
    let healthy = status["currentHealthy"].as_i64().unwrap_or(0);
    let desired = status["desiredHealthy"].as_i64().unwrap_or(0);
    budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" || (healthy >= desired && desired > 0)
}

fn taken(budget: &Value, pod: &str) -> ApiResult<Value> {
    let status = &budget["status"];
    let behind = status["observedGeneration"].as_i64().unwrap_or(0)
        < budget["metadata"]["generation"].as_i64().unwrap_or(0);
    let refuse = || {
        ApiError::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 10)
    };
    if behind {
        return Err(refuse());
    }
    let allowed = status["disruptionsAllowed"].as_i64().unwrap_or(0);
    if allowed <= 0 {
        let (name, desired) = (meta::text(budget, "name"), status["desiredHealthy"].as_i64().unwrap_or(0));
        let healthy = status["currentHealthy"].as_i64().unwrap_or(0);
        let said =
            format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently");
        return Err(refuse().cause("DisruptionBudget", "", &said));
    }
    let mut new = budget.clone();
    meta::clear(&mut new, "resourceVersion");
    new["status"]["disruptionsAllowed"] = (allowed - 1).into();
    if !new["status"]["disruptedPods"].is_object() {
        new["status"]["disruptedPods"] = json!({});
    }
    new["status"]["disruptedPods"][pod] = meta::now().into();
    Ok(new)
}
