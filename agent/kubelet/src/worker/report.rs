//! Tells the API: the status by a strategic merge patch of what this kubelet owns, and the end of a pod.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};

use super::ops::{Context, Outcome};
use crate::{
    pod::{model::PodModel, status},
    session::{CallError, bounded},
    shared::Shared,
};

/// Fields that this kubelet sets, and clears when they no longer hold.
const OWN: [&str; 14] = [
    "phase",
    "reason",
    "message",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "qosClass",
    "startTime",
    "observedGeneration",
    "containerStatuses",
    "initContainerStatuses",
    "ephemeralContainerStatuses",
    "conditions",
];

/// Whether the API already has all that `wanted` says.
pub(super) fn same(known: &PodStatus, wanted: &PodStatus) -> bool {
    let conditions =
        wanted.conditions.iter().flatten().all(|c| status::condition(known, &c.type_) == Some(c));
    let strip = |status: &PodStatus| {
        let mut status = status.clone();
        status.conditions = None;
        own(&status)
    };
    conditions && strip(known) == strip(wanted)
}

/// Whether the conditions in the API hold what `wanted` says: a controller marks the pods of a node that it
/// takes for lost, and it is for the kubelet to say that they are well.
pub(super) fn agrees(seen: &PodStatus, wanted: &PodStatus) -> bool {
    let mut conditions = wanted.conditions.iter().flatten();
    conditions.all(|c| status::condition(seen, &c.type_).is_some_and(|found| found.status == c.status))
}

fn own(status: &PodStatus) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.retain(|key, _| OWN.contains(&key.as_str()));
    }
    value
}

/// The patch from `known` to `wanted`.
fn difference(uid: &str, known: Option<&PodStatus>, wanted: &PodStatus) -> Value {
    let mut status = own(wanted);
    if let Some(map) = status.as_object_mut() {
        let before = known.map(own).unwrap_or_default();
        for key in OWN {
            if !map.contains_key(key) && before.get(key).is_some() {
                map.insert(key.to_owned(), Value::Null);
            }
        }
        clear_conditions(map, &before);
        // Addresses are merged by value, so those that are gone must be named.
        let ips = |s: &PodStatus| s.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect::<Vec<_>>();
        let stay = ips(wanted);
        let gone = known.map(ips).unwrap_or_default().into_iter().filter(|ip| !stay.contains(ip));
        if let Some(list) = map.get_mut("podIPs").and_then(Value::as_array_mut) {
            list.extend(gone.map(|ip| json!({"$patch": "delete", "ip": ip})));
        }
    }
    json!({"metadata": {"uid": uid}, "status": status})
}

/// Conditions are merged by type, so a reason or message that no longer holds must be named to go.
fn clear_conditions(status: &mut serde_json::Map<String, Value>, before: &Value) {
    let known = before.get("conditions").and_then(Value::as_array);
    let wanted = status.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in wanted.into_iter().flatten() {
        let same = known.into_iter().flatten().find(|k| k.get("type") == condition.get("type"));
        for key in ["reason", "message"] {
            if condition.get(key).is_none() && same.is_some_and(|k| k.get(key).is_some()) {
                condition[key] = Value::Null;
            }
        }
    }
}

/// Sends `status`; what the API has now, or nothing when it could not be told.
pub(super) async fn patch(
    shared: Arc<Shared>,
    model: Arc<PodModel>,
    known: Option<PodStatus>,
    status: PodStatus,
) -> Outcome {
    match send(&shared, &model, known.as_ref(), &status).await {
        Ok(()) => Outcome::Reported(Some(Box::new(status))),
        Err(error) => {
            tracing::warn!(pod = %model.id, %error, "the status was not taken");
            Outcome::Reported(None)
        }
    }
}

async fn send(
    shared: &Shared,
    model: &PodModel,
    known: Option<&PodStatus>,
    status: &PodStatus,
) -> Result<(), CallError> {
    let api: Api<Pod> = Api::namespaced(shared.session.client(), &model.id.namespace);
    let patch = Patch::Strategic(difference(&model.id.uid, known, status));
    match bounded(api.patch_status(&model.id.name, &PatchParams::default(), &patch)).await {
        Ok(_) => Ok(()),
        // Gone, or another pod of the same name: nobody is left to be told.
        Err(error) if matches!(error.code(), Some(404 | 409)) => {
            tracing::debug!(pod = %model.id, %error, "no such pod to report about");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Reports the last status, then deletes the object for good.
pub(super) async fn finalize(context: Context) -> Outcome {
    let model = &context.model;
    let result = async {
        if let Some(status) = &context.last_status {
            send(&context.shared, model, model.pod.status.as_ref(), status).await?;
        }
        let api: Api<Pod> = Api::namespaced(context.shared.session.client(), &model.id.namespace);
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(model.id.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        match bounded(api.delete(&model.id.name, &params)).await {
            Err(error) if !matches!(error.code(), Some(404 | 409)) => Err(error),
            _ => Ok(()),
        }
    };
    match result.await {
        Ok(()) => Outcome::Finalized(Ok(())),
        Err(error) => {
            tracing::warn!(pod = %model.id, %error, "the pod is down, but the API was not told");
            Outcome::Finalized(Err(()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn others_conditions_are_no_difference() {
        let known = status(json!({"phase": "Running", "conditions":
            [{"type": "Ready", "status": "True"}, {"type": "example.com/gate", "status": "True"}]}));
        let wanted = status(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}));
        assert!(same(&known, &wanted));
        let wanted =
            status(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}));
        assert!(!same(&known, &wanted));
    }

    #[test]
    fn a_condition_that_somebody_else_has_written_is_disputed() {
        let ready = |state: &str| status(json!({"conditions": [{"type": "Ready", "status": state}]}));
        assert!(agrees(&ready("True"), &ready("True")));
        assert!(!agrees(&ready("False"), &ready("True")));
    }

    #[test]
    fn what_no_longer_holds_is_cleared() {
        let known = status(json!({"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}));
        let wanted = status(json!({"phase": "Running", "podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}]}));
        let patch = difference("u", Some(&known), &wanted);
        assert_eq!(
            patch["status"]["podIPs"],
            json!([{"ip": "10.0.0.2"}, {"$patch": "delete", "ip": "10.0.0.1"}])
        );
        assert_eq!(patch["metadata"]["uid"], "u");
        let patch = difference("u", Some(&known), &status(json!({"phase": "Failed"})));
        assert_eq!(patch["status"]["podIP"], Value::Null);
        assert!(patch["status"].as_object().unwrap().contains_key("podIP"));
        assert!(!patch["status"].as_object().unwrap().contains_key("reason"));
    }

    #[test]
    fn a_condition_that_holds_again_loses_its_reason() {
        let known = status(json!({"conditions": [{"type": "Ready", "status": "False", "reason": "x"}]}));
        let wanted = status(json!({"conditions": [{"type": "Ready", "status": "True"}]}));
        let patch = difference("u", Some(&known), &wanted);
        let condition = patch["status"]["conditions"][0].as_object().unwrap();
        assert_eq!(condition.get("reason"), Some(&Value::Null));
        assert!(!condition.contains_key("message"));
    }
}
