//! ControllerRevisions.

use serde_json::Value;

use crate::check;
use crate::error::Errors;
use crate::field::{items, text};
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

pub(crate) static STRATEGY: Strategy = Strategy {
    validate,
    validate_change: |new, old, errors| check::immutable(new, old, &["data"], &Path::ROOT, errors),
    row: |revision, now| {
        let owner = items(revision, &["metadata", "ownerReferences"])
            .iter()
            .find(|o| crate::field::flag(o, &["controller"]))
            .map_or_else(String::new, |o| {
                let group = text(o, &["apiVersion"]).split_once('/').map_or("", |(group, _)| group);
                let kind = text(o, &["kind"]).to_lowercase();
                let dot = if group.is_empty() { "" } else { "." };
                format!("{kind}{dot}{group}/{}", text(o, &["name"]))
            });
        let number = revision["revision"].as_i64().unwrap_or(0);
        vec![row::name(revision), row::or_none(&owner), number.into(), row::age(revision, now)]
    },
    ..Strategy::BASE
};

fn validate(revision: &Value, errors: &mut Errors) {
    check::non_negative(revision, "revision", &Path::ROOT, errors);
    if !revision["data"].is_object() {
        errors.required(&Path::new("data"), "data is mandatory");
    }
}
