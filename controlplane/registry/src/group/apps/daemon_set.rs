//! DaemonSets.

use serde_json::Value;

use super::Absent;
use crate::check;
use crate::error::Errors;
use crate::field::{at, fill, fill_empty, object, text};
use crate::group::core::pod_spec;
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

const COUNTS: &[&str] = &[
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
];

const TEMPLATE_COUNT: &str = "deprecated.daemonset.template.generation";

pub(crate) static STRATEGY: Strategy = Strategy {
    default,
    prepare_create: |daemons| count_templates(daemons, 1),
    prepare_update: |new, old| {
        let before = text(old, &["metadata", "annotations", TEMPLATE_COUNT]).parse().unwrap_or(0);
        let changed = at(new, &["spec", "template"]) != at(old, &["spec", "template"]);
        count_templates(new, before + i64::from(changed));
    },
    validate,
    validate_change: super::selector_change,
    validate_status: |new, _, errors| {
        check::all_non_negative(&new["status"], COUNTS, &Path::new("status"), errors);
    },
    warnings: super::warnings,
    row: |daemons, now| {
        let count = |name: &str| super::count(daemons, &["status", name]);
        let mut cells = vec![
            row::name(daemons),
            count("desiredNumberScheduled"),
            count("currentNumberScheduled"),
            count("numberReady"),
            count("updatedNumberScheduled"),
            count("numberAvailable"),
            row::labels(at(daemons, &["spec", "template", "spec", "nodeSelector"])),
            row::age(daemons, now),
        ];
        cells.extend(super::wide(daemons, &daemons["spec"]["template"]));
        cells
    },
    ..Strategy::WITH_STATUS
};

/// Old clients read how often the template changed.
fn count_templates(daemons: &mut Value, count: i64) {
    object(object(daemons, "metadata"), "annotations")[TEMPLATE_COUNT] = count.to_string().into();
}

fn default(daemons: &mut Value) {
    let spec = object(daemons, "spec");
    fill(spec, "revisionHistoryLimit", 10);
    let strategy = object(spec, "updateStrategy");
    fill_empty(strategy, "type", "RollingUpdate");
    if text(strategy, &["type"]) == "RollingUpdate" {
        let rolling = object(strategy, "rollingUpdate");
        fill(rolling, "maxUnavailable", 1);
        fill(rolling, "maxSurge", 0);
    }
    super::default_template(spec);
}

fn validate(daemons: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &daemons["spec"];
    super::selector(spec, Absent::MatchesNothing, &path, errors);
    pod_spec::validate_lasting_template(&spec["template"], &path.field("template"), errors);
    check::all_non_negative(spec, &["minReadySeconds", "revisionHistoryLimit"], &path, errors);
    let place = path.field("updateStrategy");
    match text(spec, &["updateStrategy", "type"]) {
        "OnDelete" => {}
        "RollingUpdate" => match at(spec, &["updateStrategy", "rollingUpdate"]) {
            Some(rolling) => rolling_update(rolling, &place.field("rollingUpdate"), errors),
            None => errors.required(&place.field("rollingUpdate"), ""),
        },
        other => errors.not_supported(&place, other, &["OnDelete", "RollingUpdate"]),
    }
}

fn rolling_update(rolling: &Value, path: &Path<'_>, errors: &mut Errors) {
    let unavailable = path.field("maxUnavailable");
    let surge = path.field("maxSurge");
    for (name, place) in [("maxUnavailable", &unavailable), ("maxSurge", &surge)] {
        check::count_or_percent(&rolling[name], place, errors);
        check::at_most_all(&rolling[name], place, errors);
    }
    let zero = |name: &str| {
        let unreadable =
            rolling[name].as_str().is_some_and(|s| skep_api::int_or_string::percent(s).is_none());
        unreadable || check::is_zero(rolling.get(name))
    };
    match (zero("maxUnavailable"), zero("maxSurge")) {
        (true, true) => errors.required(&unavailable, "cannot be 0 when maxSurge is 0"),
        (false, false) => {
            errors.invalid(
                &surge,
                rolling["maxSurge"].clone(),
                "may not be set when maxUnavailable is non-zero",
            );
        }
        _ => {}
    }
}
