//! The group `apps`, and what its workloads share.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::check;
use crate::error::Errors;
use crate::field::{at, fill, int, object, text};
use crate::group::core::{pod_spec, pod_template};
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

pub(crate) mod controller_revision;
pub(crate) mod daemon_set;
pub(crate) mod deployment;
pub(crate) mod replica_set;
pub(crate) mod stateful_set;

pub(super) fn strategy(plural: &str) -> Option<&'static Strategy> {
    Some(match plural {
        "controllerrevisions" => &controller_revision::STRATEGY,
        "daemonsets" => &daemon_set::STRATEGY,
        "deployments" => &deployment::STRATEGY,
        "replicasets" => &replica_set::STRATEGY,
        "statefulsets" => &stateful_set::STRATEGY,
        _ => return None,
    })
}

/// Fills in the pod template of a workload's spec.
pub(crate) fn default_template(spec: &mut Value) {
    let template = object(spec, "template");
    fill(template, "metadata", Map::new());
    pod_spec::default::template(template);
}

/// How a workload treats an absent selector.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    /// Says that it is required.
    Required,
    /// Only that it matches nothing.
    MatchesNothing,
}

/// Validates a workload's selector and that its template's labels match it.
fn selector(spec: &Value, absent: Absent, path: &Path<'_>, errors: &mut Errors) {
    let place = path.field("selector");
    let given = at(spec, &["selector"]);
    match given {
        None if absent == Absent::Required => errors.required(&place, ""),
        None => {}
        Some(selector) => {
            check::selector(Some(selector), &place, errors);
            if check::selects_all(selector) {
                errors.invalid(&place, selector.clone(), "empty selector is invalid for this workload");
            }
        }
    }
    let parsed = given.map(|s| {
        serde_json::from_value(s.clone()).ok().and_then(|o| skep_api::LabelSelector::from_object(&o).ok())
    });
    let matches = match &parsed {
        None => false,
        Some(None) => {
            errors.invalid(&place, given.cloned().unwrap_or_default(), "invalid label selector");
            true
        }
        Some(Some(parsed)) => parsed
            .matches_with(|key| at(spec, &["template", "metadata", "labels", key]).and_then(Value::as_str)),
    };
    if !matches {
        let labels = at(spec, &["template", "metadata", "labels"]).cloned().unwrap_or_default();
        let template = path.field("template");
        let metadata = template.field("metadata");
        errors.invalid(&metadata.field("labels"), labels, "`selector` does not match template `labels`");
    }
}

/// Whether a workload's selector changed, which it must not.
fn selector_change(new: &Value, old: &Value, errors: &mut Errors) {
    check::immutable(&new["spec"], &old["spec"], &["selector"], &Path::new("spec"), errors);
}

/// Counts in a status: none negative, parts not more than the whole.
fn status_counts(new: &Value, names: &[&str], errors: &mut Errors) {
    let path = Path::new("status");
    let status = &new["status"];
    check::all_non_negative(status, names, &path, errors);
    let total = int(status, &["replicas"]).unwrap_or(0);
    for name in
        names.iter().filter(|n| !matches!(**n, "replicas" | "observedGeneration" | "unavailableReplicas"))
    {
        let count = int(status, &[name]).unwrap_or(0);
        if count > total {
            errors.invalid(&path.field(name), count, "cannot be greater than status.replicas");
        }
    }
    let (available, ready) =
        (int(status, &["availableReplicas"]).unwrap_or(0), int(status, &["readyReplicas"]).unwrap_or(0));
    if available > ready {
        errors.invalid(&path.field("availableReplicas"), available, "cannot be greater than readyReplicas");
    }
}

/// A count along the path, zero when absent.
fn count(object: &Value, path: &[&str]) -> Value {
    int(object, path).unwrap_or(0).into()
}

/// The three wide columns of workloads: container names, images, selector.
pub(crate) fn wide(object: &Value, template: &Value) -> [Value; 3] {
    let (names, images) = pod_template::containers(template);
    [names, images, row::selector(object["spec"].get("selector"))]
}

/// A warning about names with dots, which end up in host names.
pub(crate) fn name_warning(object: &Value, out: &mut Vec<String>) {
    if text(object, &["metadata", "name"]).contains('.') {
        out.push(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; \
             a DNS label is recommended: [must not contain dots]"
                .to_owned(),
        );
    }
}

/// Warnings about a workload's name and pod template.
fn warnings(object: &Value, out: &mut Vec<String>) {
    name_warning(object, out);
    let path = Path::new("spec");
    let path = path.field("template");
    crate::group::core::pod::template_warnings(&object["spec"]["template"]["spec"], &path.field("spec"), out);
}

/// Name, desired, current, ready, age and the wide columns of a replica set.
fn replica_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![
        row::name(object),
        count(object, &["spec", "replicas"]),
        count(object, &["status", "replicas"]),
        count(object, &["status", "readyReplicas"]),
        row::age(object, now),
    ];
    cells.extend(wide(object, &object["spec"]["template"]));
    cells
}
