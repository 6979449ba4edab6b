//! Pods.

use serde_json::{Value, json};

use super::pod_spec;
use crate::error::Errors;
use crate::field::{at, fill, items, items_mut, object, text};
use crate::path::Path;
use crate::strategy::{FieldSink, Strategy};

mod change;
mod qos;
mod row;
mod subresource;
mod warning;

pub(crate) use subresource::{prepare_subresource, validate_subresource};
pub(crate) use warning::of_spec as template_warnings;

pub(crate) static STRATEGY: Strategy = Strategy {
    selectable: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ],
    default,
    prepare_create,
    prepare_status,
    validate,
    validate_change: change::validate,
    validate_status,
    warnings: warning::collect,
    fields,
    row: row::cells,
    ..Strategy::WITH_STATUS
};

fn default(pod: &mut Value) {
    let spec = object(pod, "spec");
    pod_spec::default::spec(spec);
    pod_spec::default::pod_only(spec);
    for condition in items_mut(pod, &["status", "conditions"]) {
        for time in ["lastProbeTime", "lastTransitionTime"] {
            fill(condition, time, Value::Null);
        }
    }
}

fn prepare_create(pod: &mut Value) {
    let mut status = json!({"phase": "Pending", "qosClass": qos::class(pod)});
    if !items(pod, &["spec", "schedulingGates"]).is_empty() {
        status["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates"}]);
    }
    pod["status"] = status;
}

fn prepare_status(new: &mut Value, old: &Value) {
    if at(new, &["status", "qosClass"]).is_none()
        && let Some(class) = at(old, &["status", "qosClass"])
    {
        object(new, "status")["qosClass"] = class.clone();
    }
    let list = items(new, &["status", "podIPs"]);
    let (first, alone) =
        (list.first().map(|i| text(i, &["ip"]).to_owned()), text(new, &["status", "podIP"]).to_owned());
    match first {
        Some(first) if alone.is_empty() => new["status"]["podIP"] = first.into(),
        None if !alone.is_empty() => new["status"]["podIPs"] = json!([{"ip": alone}]),
        _ => {}
    }
}

fn validate(pod: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    pod_spec::validate(pod.get("spec").unwrap_or(&Value::Null), &path, errors);
}

fn validate_status(new: &Value, old: &Value, errors: &mut Errors) {
    let before = text(old, &["status", "qosClass"]);
    let now = text(new, &["status", "qosClass"]);
    if !before.is_empty() && now != before {
        errors.invalid(&Path::new("status").field("qosClass"), now, "field is immutable");
    }
}

fn fields(pod: &Value, sink: FieldSink<'_>) {
    sink("spec.nodeName", text(pod, &["spec", "nodeName"]).to_owned());
    sink("spec.restartPolicy", text(pod, &["spec", "restartPolicy"]).to_owned());
    sink("spec.schedulerName", text(pod, &["spec", "schedulerName"]).to_owned());
    sink("spec.serviceAccountName", text(pod, &["spec", "serviceAccountName"]).to_owned());
    sink("spec.hostNetwork", crate::field::flag(pod, &["spec", "hostNetwork"]).to_string());
    sink("status.phase", text(pod, &["status", "phase"]).to_owned());
    let first = items(pod, &["status", "podIPs"]).first().map(|i| text(i, &["ip"]).to_owned());
    let ip = first.unwrap_or_else(|| text(pod, &["status", "podIP"]).to_owned());
    sink("status.podIP", ip.clone());
    sink("status.podIPs", ip);
    sink("status.nominatedNodeName", text(pod, &["status", "nominatedNodeName"]).to_owned());
}
