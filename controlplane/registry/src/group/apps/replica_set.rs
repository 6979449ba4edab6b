//! ReplicaSets.

use serde_json::Value;

use super::Absent;
use crate::check;
use crate::error::Errors;
use crate::field::{fill, object};
use crate::group::core::pod_spec;
use crate::path::Path;
use crate::strategy::Strategy;

const COUNTS: &[&str] =
    &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];

pub(crate) static STRATEGY: Strategy = Strategy {
    default: |replicas| {
        let spec = object(replicas, "spec");
        fill(spec, "replicas", 1);
        super::default_template(spec);
    },
    validate,
    validate_change: super::selector_change,
    validate_status: |new, _, errors| super::status_counts(new, COUNTS, errors),
    warnings: super::warnings,
    row: super::replica_row,
    ..Strategy::WITH_STATUS
};

fn validate(replicas: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &replicas["spec"];
    check::all_non_negative(spec, &["replicas", "minReadySeconds"], &path, errors);
    super::selector(spec, Absent::Required, &path, errors);
    pod_spec::validate_lasting_template(&spec["template"], &path.field("template"), errors);
}
