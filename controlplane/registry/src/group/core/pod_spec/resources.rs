//! Resource requests and limits.

use serde_json::Value;

use crate::check;
use crate::error::Errors;
use crate::field::{at, members};
use crate::path::Path;

const STANDARD: &[&str] = &["cpu", "memory", "ephemeral-storage"];

/// Validates the limits and requests of a container.
pub(crate) fn validate(requirements: &Value, path: &Path<'_>, errors: &mut Errors) {
    let limits = path.field("limits");
    for (name, amount) in members(requirements, &["limits"]) {
        one(name, amount, &limits.key(name), errors);
    }
    let requests = path.field("requests");
    for (name, amount) in members(requirements, &["requests"]) {
        one(name, amount, &requests.key(name), errors);
        let Some(limit) = at(requirements, &["limits", name]) else {
            if is_extended(name) {
                errors.required(&limits, "Limit must be set for non overcommitable resources");
            }
            continue;
        };
        let (requested, allowed) = (check::quantity(amount), check::quantity(limit));
        if requested > allowed {
            let detail = format!(
                "must be less than or equal to {name} limit of {}",
                limit.as_str().unwrap_or_default()
            );
            errors.invalid(&requests, amount.clone(), detail);
        } else if is_extended(name) && requested != allowed {
            errors.invalid(&requests, amount.clone(), format!("must be equal to {name} limit of {allowed}"));
        }
    }
}

fn is_extended(name: &str) -> bool {
    name.starts_with("hugepages-") || name.contains('/') && !name.contains("kubernetes.io/")
}

fn one(name: &str, amount: &Value, path: &Path<'_>, errors: &mut Errors) {
    let before = errors.len();
    check::qualified_name(name, path, errors);
    if errors.len() == before
        && !name.contains('/')
        && !STANDARD.contains(&name)
        && !name.starts_with("hugepages-")
    {
        errors.invalid(path, name, "must be a standard resource for containers");
    }
    check::quantity_non_negative(amount, path, errors);
    if is_extended(name) && !check::quantity(amount).is_whole() {
        errors.invalid(path, amount.clone(), "must be an integer");
    }
}
