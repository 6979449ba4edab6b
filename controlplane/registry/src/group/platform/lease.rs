//! Leases.

use serde_json::Value;

use crate::check;
use crate::error::Errors;
use crate::field::{at, int, text};
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

pub(crate) static STRATEGY: Strategy = Strategy {
    unconditional_update: false,
    validate,
    row: |lease, now| {
        vec![row::name(lease), text(lease, &["spec", "holderIdentity"]).into(), row::age(lease, now)]
    },
    ..Strategy::BASE
};

fn validate(lease: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &lease["spec"];
    if let Some(seconds) = int(spec, &["leaseDurationSeconds"]).filter(|s| *s <= 0) {
        errors.invalid(&path.field("leaseDurationSeconds"), seconds, "must be greater than 0");
    }
    check::non_negative(spec, "leaseTransitions", &path, errors);
    if at(spec, &["holderIdentity"]).is_some_and(|h| h == "") && at(spec, &["strategy"]).is_some() {
        errors.invalid(&path.field("holderIdentity"), "", "must not be empty");
    }
}
