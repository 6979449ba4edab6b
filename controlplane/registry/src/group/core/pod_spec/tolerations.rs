//! Tolerations.

use serde_json::Value;

use crate::check;
use crate::error::Errors;
use crate::field::{at, text};
use crate::metadata::format;
use crate::path::Path;

const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "PreferNoSchedule"];

/// Validates a list of tolerations.
pub(crate) fn validate(tolerations: &[Value], path: &Path<'_>, errors: &mut Errors) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let path = path.index(i);
        let (key, operator) = (text(toleration, &["key"]), text(toleration, &["operator"]));
        let value = text(toleration, &["value"]);
        if !key.is_empty() {
            check::qualified_name(key, &path.field("key"), errors);
        }
        let place = path.field("operator");
        if key.is_empty() && operator != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(&place, operator, detail);
        }
        let effect = text(toleration, &["effect"]);
        if at(toleration, &["tolerationSeconds"]).is_some() && effect != "NoExecute" {
            errors.invalid(
                &path.field("effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        match operator {
            "" | "Equal" => {
                if let Some(problem) = format::label_value_problem(value) {
                    errors.invalid(&place, value, problem);
                }
            }
            "Exists" if !value.is_empty() => {
                errors.invalid(&place, operator, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            other => errors.not_supported(&place, other, &["Equal", "Exists"]),
        }
        check::one_of(toleration, "effect", EFFECTS, &path, errors);
    }
}
