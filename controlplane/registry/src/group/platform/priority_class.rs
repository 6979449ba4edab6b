//! PriorityClasses.

use serde_json::Value;

use crate::check;
use crate::error::Errors;
use crate::field::{fill_empty, flag, int, text};
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

const HIGHEST: i64 = 1_000_000_000;
const SYSTEM: &[(&str, i64)] =
    &[("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

pub(crate) static STRATEGY: Strategy = Strategy {
    generation: true,
    default: |class| fill_empty(class, "preemptionPolicy", "PreemptLowerPriority"),
    validate,
    validate_change: |new, old, errors| {
        if new.get("value") != old.get("value") {
            errors.forbidden(&Path::new("value"), "may not be changed in an update.");
        }
        check::immutable(new, old, &["preemptionPolicy"], &Path::ROOT, errors);
    },
    row: |class, now| {
        vec![
            row::name(class),
            int(class, &["value"]).unwrap_or(0).into(),
            flag(class, &["globalDefault"]).into(),
            row::age(class, now),
            text(class, &["preemptionPolicy"]).into(),
        ]
    },
    ..Strategy::BASE
};

fn validate(class: &Value, errors: &mut Errors) {
    let name = text(class, &["metadata", "name"]);
    let value = int(class, &["value"]).unwrap_or(0);
    if name.starts_with("system-") {
        if !SYSTEM.contains(&(name, value)) {
            let path = Path::new("metadata");
            errors.forbidden(
                &path.field("name"),
                "priority class names with 'system-' prefix are reserved for system use only",
            );
        }
    } else if value > HIGHEST {
        errors
            .forbidden(&Path::new("value"), "maximum allowed value of a user defined priority is 1000000000");
    }
    check::one_of(class, "preemptionPolicy", &["Never", "PreemptLowerPriority"], &Path::ROOT, errors);
}
