//! Deployments.

use serde_json::Value;

use super::Absent;
use crate::check;
use crate::error::Errors;
use crate::field::{at, fill, fill_empty, int, object, text};
use crate::group::core::pod_spec;
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

const COUNTS: &[&str] = &[
    "observedGeneration",
    "replicas",
    "updatedReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
    "terminatingReplicas",
];

pub(crate) static STRATEGY: Strategy = Strategy {
    default,
    validate,
    prepare_status: |new, old| crate::field::copy("labels", &old["metadata"], &mut new["metadata"]),
    validate_change: super::selector_change,
    validate_status: |new, _, errors| super::status_counts(new, &COUNTS[..6], errors),
    warnings: super::warnings,
    row: |deployment, now| {
        let ready = int(deployment, &["status", "readyReplicas"]).unwrap_or(0);
        let wanted = int(deployment, &["spec", "replicas"]).unwrap_or(0);
        let mut cells = vec![
            row::name(deployment),
            format!("{ready}/{wanted}").into(),
            super::count(deployment, &["status", "updatedReplicas"]),
            super::count(deployment, &["status", "availableReplicas"]),
            row::age(deployment, now),
        ];
        cells.extend(super::wide(deployment, &deployment["spec"]["template"]));
        cells
    },
    ..Strategy::WITH_STATUS
};

fn default(deployment: &mut Value) {
    let spec = object(deployment, "spec");
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    fill(spec, "progressDeadlineSeconds", 600);
    let strategy = object(spec, "strategy");
    fill_empty(strategy, "type", "RollingUpdate");
    if text(strategy, &["type"]) == "RollingUpdate" {
        let rolling = object(strategy, "rollingUpdate");
        fill(rolling, "maxUnavailable", "25%");
        fill(rolling, "maxSurge", "25%");
    }
    super::default_template(spec);
}

fn validate(deployment: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &deployment["spec"];
    let counts = ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"];
    check::all_non_negative(spec, &counts, &path, errors);
    super::selector(spec, Absent::Required, &path, errors);
    pod_spec::validate_lasting_template(&spec["template"], &path.field("template"), errors);
    let deadline = int(spec, &["progressDeadlineSeconds"]);
    if let Some(deadline) = deadline.filter(|d| *d <= int(spec, &["minReadySeconds"]).unwrap_or(0)) {
        errors.invalid(
            &path.field("progressDeadlineSeconds"),
            deadline,
            "must be greater than minReadySeconds",
        );
    }
    strategy(spec, &path.field("strategy"), errors);
}

fn strategy(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let rolling = at(spec, &["strategy", "rollingUpdate"]);
    let place = path.field("rollingUpdate");
    match text(spec, &["strategy", "type"]) {
        "Recreate" if rolling.is_some() => {
            errors.forbidden(&place, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let Some(rolling) = rolling else {
                return errors.required(&place, "this should be defaulted and never be nil");
            };
            for name in ["maxUnavailable", "maxSurge"] {
                check::count_or_percent(&rolling[name], &place.field(name), errors);
            }
            check::at_most_all(&rolling["maxUnavailable"], &place.field("maxUnavailable"), errors);
            if check::is_zero(rolling.get("maxUnavailable")) && check::is_zero(rolling.get("maxSurge")) {
                let shown = rolling["maxUnavailable"].clone();
                errors.invalid(&place.field("maxUnavailable"), shown, "may not be 0 when `maxSurge` is 0");
            }
        }
        other => errors.not_supported(path, other, &["Recreate", "RollingUpdate"]),
    }
}
