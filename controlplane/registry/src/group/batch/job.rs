//! Jobs.

use jiff::Timestamp;
use serde_json::{Map, Value};
use skep_api::time;

use crate::check;
use crate::error::Errors;
use crate::field::{at, copy, fill, fill_empty, flag, int, items, object, set, text};
use crate::group::apps;
use crate::group::core::pod_spec;
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

const UID_LABELS: &[&str] = &["controller-uid", "batch.kubernetes.io/controller-uid"];
const NAME_LABELS: &[&str] = &["job-name", "batch.kubernetes.io/job-name"];
/// What the template of a suspended job that never ran may change.
const SCHEDULING: &[&str] = &["nodeSelector", "affinity", "tolerations", "schedulingGates"];

pub(crate) static STRATEGY: Strategy = Strategy {
    selectable: &["status.successful"],
    default: |job| {
        if let Some(labels) = at(job, &["spec", "template", "metadata", "labels"]).cloned()
            && !set(job, &["metadata", "labels"])
        {
            object(job, "metadata")["labels"] = labels;
        }
        let spec = object(job, "spec");
        default_spec(spec);
    },
    prepare_create: generate_selector,
    validate: |job, errors| validate_spec(&job["spec"], &Path::new("spec"), errors),
    validate_change,
    warnings: apps::name_warning,
    fields: |job, sink| {
        sink("status.successful", int(job, &["status", "succeeded"]).unwrap_or(0).to_string())
    },
    row: cells,
    ..Strategy::WITH_STATUS
};

fn default_spec(spec: &mut Value) {
    if at(spec, &["completions"]).is_none() && at(spec, &["parallelism"]).is_none() {
        fill(spec, "completions", 1);
    }
    fill(spec, "parallelism", 1);
    let per_index = at(spec, &["backoffLimitPerIndex"]).is_some();
    fill(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
    fill_empty(spec, "completionMode", "NonIndexed");
    fill(spec, "suspend", false);
    let replacement =
        if at(spec, &["podFailurePolicy"]).is_some() { "Failed" } else { "TerminatingOrFailed" };
    fill_empty(spec, "podReplacementPolicy", replacement);
    fill(spec, "manualSelector", false);
    if !flag(spec, &["manualSelector"]) {
        crate::field::remove(spec, "manualSelector");
    }
    default_template_only(spec);
}

/// Fills in the pod template alone, as in a CronJob.
pub(super) fn default_template_only(spec: &mut Value) {
    let restart = text(spec, &["template", "spec", "restartPolicy"]).to_owned();
    let template = object(spec, "template");
    fill(template, "metadata", Map::new());
    pod_spec::default::template(template);
    if restart.is_empty() {
        template["spec"]["restartPolicy"] = "Always".into();
    }
}

/// Jobs select their pods by their uid, unless they say otherwise.
fn generate_selector(job: &mut Value) {
    if flag(job, &["spec", "manualSelector"]) {
        return;
    }
    let uid = text(job, &["metadata", "uid"]).to_owned();
    let name = text(job, &["metadata", "name"]).to_owned();
    if uid.is_empty() {
        return;
    }
    let spec = object(job, "spec");
    let labels = object(object(object(spec, "template"), "metadata"), "labels");
    for (keys, value) in [(UID_LABELS, &uid), (NAME_LABELS, &name)] {
        for key in keys {
            labels[*key] = value.as_str().into();
        }
    }
    object(object(spec, "selector"), "matchLabels")[UID_LABELS[1]] = uid.into();
}

/// Validates a job's spec.
pub(super) fn validate_spec(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let counts = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    check::all_non_negative(spec, &counts, path, errors);
    check::one_of(spec, "completionMode", &["Indexed", "NonIndexed"], path, errors);
    let indexed = text(spec, &["completionMode"]) == "Indexed";
    if indexed && at(spec, &["completions"]).is_none() {
        errors.required(&path.field("completions"), "when completion mode is Indexed");
    }
    if !indexed && at(spec, &["backoffLimitPerIndex"]).is_some() {
        errors.invalid(
            &path.field("backoffLimitPerIndex"),
            spec["backoffLimitPerIndex"].clone(),
            "requires indexed completion mode",
        );
    }
    check::selector(spec.get("selector"), &path.field("selector"), errors);
    check::one_of(spec, "podReplacementPolicy", &["Failed", "TerminatingOrFailed"], path, errors);
    if at(spec, &["podFailurePolicy"]).is_some()
        && text(spec, &["podReplacementPolicy"]) == "TerminatingOrFailed"
    {
        errors.not_supported(&path.field("podReplacementPolicy"), "TerminatingOrFailed", &["Failed"]);
    }
    let manager = text(spec, &["managedBy"]);
    if !manager.is_empty() && !manager.contains('/') {
        errors.invalid(
            &path.field("managedBy"),
            manager,
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        );
    }
    let template = path.field("template");
    pod_spec::validate_template(&spec["template"], &template, errors);
    let restart = text(spec, &["template", "spec", "restartPolicy"]);
    let place = template.field("spec");
    if matches!(restart, "" | "Always") {
        errors.required(&place.field("restartPolicy"), "valid values: \"OnFailure\", \"Never\"");
    }
    labels_match(spec, &template, errors);
}

fn labels_match(spec: &Value, template: &Path<'_>, errors: &mut Errors) {
    let Some(selector) = at(spec, &["selector"]) else { return };
    let parsed = serde_json::from_value(selector.clone())
        .ok()
        .and_then(|o| skep_api::LabelSelector::from_object(&o).ok());
    let label = |key: &str| at(spec, &["template", "metadata", "labels", key]).and_then(Value::as_str);
    if parsed.is_some_and(|s| !s.matches_with(label)) {
        let labels = at(spec, &["template", "metadata", "labels"]).cloned().unwrap_or_default();
        let metadata = template.field("metadata");
        errors.invalid(&metadata.field("labels"), labels, "`selector` does not match template `labels`");
    }
}

fn validate_change(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    // An update is checked on its own and as a change, so what is wrong in itself is reported twice.
    validate_spec(&new["spec"], &path, errors);
    let (now, before) = (&new["spec"], &old["spec"]);
    if now.get("selector") != before.get("selector") && !flag(now, &["manualSelector"]) {
        errors.invalid(&path.field("selector"), now["selector"].clone(), "`selector` not auto-generated");
    }
    let elastic = text(now, &["completionMode"]) == "Indexed"
        && now.get("completions") == now.get("parallelism")
        && before.get("completions") == before.get("parallelism");
    if !elastic {
        check::immutable(now, before, &["completions"], &path, errors);
    }
    check::immutable(
        now,
        before,
        &[
            "selector",
            "completionMode",
            "podFailurePolicy",
            "backoffLimitPerIndex",
            "managedBy",
            "successPolicy",
        ],
        &path,
        errors,
    );
    let (mut template, old_template) = (now["template"].clone(), &before["template"]);
    if flag(before, &["suspend"]) && at(old, &["status", "startTime"]).is_none() {
        for name in SCHEDULING {
            copy(name, &old_template["spec"], &mut template["spec"]);
        }
        for name in ["labels", "annotations"] {
            copy(name, &old_template["metadata"], &mut template["metadata"]);
        }
    }
    if &template != old_template {
        let place = path.field("template");
        errors.invalid(&place.field("spec"), now["template"].clone(), "field is immutable");
    }
}

fn cells(job: &Value, now: Timestamp) -> Vec<Value> {
    let started = time::parse(text(job, &["status", "startTime"]));
    let ended = time::parse(text(job, &["status", "completionTime"]));
    let duration = started.map(|from| time::age(from, ended.unwrap_or(now))).unwrap_or_default();
    let mut cells = vec![
        row::name(job),
        status(job).into(),
        completions(job).into(),
        duration.into(),
        row::age(job, now),
    ];
    cells.extend(apps::wide(job, &job["spec"]["template"]));
    cells
}

fn status(job: &Value) -> &'static str {
    let has = |kind: &str| {
        items(job, &["status", "conditions"])
            .iter()
            .any(|c| text(c, &["type"]) == kind && text(c, &["status"]) == "True")
    };
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if set(job, &["metadata", "deletionTimestamp"]) {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(job: &Value) -> String {
    let done = int(job, &["status", "succeeded"]).unwrap_or(0);
    match (int(job, &["spec", "completions"]), int(job, &["spec", "parallelism"]).unwrap_or(0)) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{done}/1 of {parallel}"),
        _ => format!("{done}/1"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selects_its_pods_by_uid() {
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {}});
        generate_selector(&mut job);
        assert_eq!(job["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], "u");
        assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
    }
}
