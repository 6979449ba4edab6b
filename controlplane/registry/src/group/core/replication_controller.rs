//! ReplicationControllers.

use serde_json::{Map, Value};

use super::{pod_spec, pod_template};
use crate::check;
use crate::error::Errors;
use crate::field::{at, fill, int, members, object, set, text};
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

pub(crate) static STRATEGY: Strategy = Strategy {
    selectable: &["status.replicas"],
    default,
    validate,
    fields: |rc, sink| sink("status.replicas", int(rc, &["status", "replicas"]).unwrap_or(0).to_string()),
    row: |rc, now| {
        let count = |path: &[&str]| int(rc, path).unwrap_or(0).into();
        let (names, images) = pod_template::containers(&rc["spec"]["template"]);
        vec![
            row::name(rc),
            count(&["spec", "replicas"]),
            count(&["status", "replicas"]),
            count(&["status", "readyReplicas"]),
            row::age(rc, now),
            names,
            images,
            row::labels(rc["spec"].get("selector")),
        ]
    },
    ..Strategy::WITH_STATUS
};

fn default(rc: &mut Value) {
    let labels = at(rc, &["spec", "template", "metadata", "labels"]).cloned();
    if let Some(labels) = labels {
        if !set(rc, &["spec", "selector"]) {
            object(rc, "spec")["selector"] = labels.clone();
        }
        if !set(rc, &["metadata", "labels"]) {
            object(rc, "metadata")["labels"] = labels;
        }
    }
    let spec = object(rc, "spec");
    fill(spec, "replicas", 1);
    if spec.get("minReadySeconds").is_some_and(|s| s == 0) {
        crate::field::remove(spec, "minReadySeconds");
    }
    if at(spec, &["template"]).is_some() {
        fill(&mut spec["template"], "metadata", Map::new());
        pod_spec::default::template(&mut spec["template"]);
    }
}

fn validate(rc: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &rc["spec"];
    check::all_non_negative(spec, &["minReadySeconds", "replicas"], &path, errors);
    if members(spec, &["selector"]).next().is_none() {
        errors.required(&path.field("selector"), "");
    }
    let place = path.field("template");
    let Some(template) = at(spec, &["template"]) else { return errors.required(&place, "") };
    let matches = members(spec, &["selector"])
        .all(|(k, v)| Some(text(template, &["metadata", "labels", k])) == v.as_str());
    if !matches {
        let labels = template["metadata"].get("labels").cloned().unwrap_or_default();
        let metadata = place.field("metadata");
        errors.invalid(&metadata.field("labels"), labels, "`selector` does not match template `labels`");
    }
    pod_spec::validate_lasting_template(template, &place, errors);
}
