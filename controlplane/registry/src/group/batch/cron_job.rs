//! CronJobs.

use jiff::Timestamp;
use serde_json::Value;

use super::{job, schedule};
use crate::check;
use crate::error::Errors;
use crate::field::{at, fill, fill_empty, flag, items, object, text};
use crate::group::apps;
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

/// Names of Jobs end in eleven characters more, and must fit into 63.
const NAME_LIMIT: usize = 52;

pub(crate) static STRATEGY: Strategy = Strategy {
    default: |cron| {
        let spec = object(cron, "spec");
        fill_empty(spec, "concurrencyPolicy", "Allow");
        fill(spec, "suspend", false);
        fill(spec, "successfulJobsHistoryLimit", 3);
        fill(spec, "failedJobsHistoryLimit", 1);
        let template = object(spec, "jobTemplate");
        object(template, "metadata");
        job::default_template_only(object(template, "spec"));
    },
    validate,
    warnings: apps::name_warning,
    row: cells,
    ..Strategy::WITH_STATUS
};

fn validate(cron: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &cron["spec"];
    let name = text(cron, &["metadata", "name"]);
    if name.len() > NAME_LIMIT {
        let metadata = Path::new("metadata");
        errors.invalid(&metadata.field("name"), name, "must be no more than 52 characters");
    }
    let when = text(spec, &["schedule"]);
    let place = path.field("schedule");
    if when.is_empty() {
        errors.required(&place, "");
    } else if let Some(problem) = schedule::problem(when) {
        errors.invalid(&place, when, problem);
    }
    if let Some(zone) = spec.get("timeZone").and_then(Value::as_str).filter(|z| !schedule::is_time_zone(z)) {
        errors.invalid(&path.field("timeZone"), zone, format!("unknown time zone {zone}"));
    }
    check::required_one_of(spec, "concurrencyPolicy", &["Allow", "Forbid", "Replace"], &path, errors);
    let counts = ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"];
    check::all_non_negative(spec, &counts, &path, errors);
    let template = path.field("jobTemplate");
    let job = template.field("spec");
    if flag(spec, &["jobTemplate", "spec", "manualSelector"]) {
        errors.not_supported(&job.field("manualSelector"), true, &["nil", "false"]);
    }
    job::validate_spec(&spec["jobTemplate"]["spec"], &job, errors);
}

fn cells(cron: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &cron["spec"];
    let last = match at(cron, &["status", "lastScheduleTime"]) {
        Some(time) => row::since(time.as_str().unwrap_or_default(), now),
        None => "<none>".into(),
    };
    let template = &spec["jobTemplate"]["spec"]["template"];
    let [names, images, _] = apps::wide(cron, template);
    vec![
        row::name(cron),
        text(spec, &["schedule"]).into(),
        row::or_none(text(spec, &["timeZone"])),
        // The column's cells are texts, as clients know them.
        if flag(spec, &["suspend"]) { "True" } else { "False" }.into(),
        items(cron, &["status", "active"]).len().into(),
        last,
        row::age(cron, now),
        names,
        images,
        row::selector(at(spec, &["jobTemplate", "spec", "selector"])),
    ]
}
