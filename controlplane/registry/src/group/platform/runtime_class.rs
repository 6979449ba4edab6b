//! RuntimeClasses.

use serde_json::Value;

use crate::check;
use crate::error::Errors;
use crate::field::{at, items, members, text};
use crate::group::core::pod_spec;
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

pub(crate) static STRATEGY: Strategy = Strategy {
    unconditional_update: false,
    validate,
    validate_change: |new, old, errors| check::immutable(new, old, &["handler"], &Path::ROOT, errors),
    row: |class, now| vec![row::name(class), text(class, &["handler"]).into(), row::age(class, now)],
    ..Strategy::BASE
};

fn validate(class: &Value, errors: &mut Errors) {
    let root = Path::ROOT;
    if check::required(class, "handler", &root, errors) {
        check::dns_label(text(class, &["handler"]), &root.field("handler"), errors);
    }
    let overhead = root.field("overhead");
    let limits = overhead.field("limits");
    for (name, amount) in members(class, &["overhead", "podFixed"]) {
        check::quantity_non_negative(amount, &limits.key(name), errors);
    }
    if let Some(scheduling) = at(class, &["scheduling"]) {
        let path = root.field("scheduling");
        crate::metadata::labels(scheduling.get("nodeSelector"), &path.field("nodeSelector"), errors);
        pod_spec::tolerations(items(scheduling, &["tolerations"]), &path.field("tolerations"), errors);
    }
}
