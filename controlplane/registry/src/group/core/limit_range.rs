//! LimitRanges.

use jiff::Timestamp;
use serde_json::Value;

use crate::check::{self, quantity};
use crate::error::Errors;
use crate::field::{at, fill, items, items_mut, members, object, set, text};
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

const AMOUNTS: &[&str] = &["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

pub(crate) static STRATEGY: Strategy = Strategy {
    default,
    validate,
    row: |range, _: Timestamp| vec![row::name(range), text(range, &["metadata", "creationTimestamp"]).into()],
    ..Strategy::BASE
};

fn default(range: &mut Value) {
    for limit in items_mut(range, &["spec", "limits"]) {
        if text(limit, &["type"]) != "Container" {
            continue;
        }
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            let Some(Value::Object(amounts)) = limit.get(from).cloned() else { continue };
            for (name, amount) in amounts {
                fill(object(limit, to), &name, amount);
            }
        }
    }
}

fn validate(range: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    let list = spec.field("limits");
    let limits = items(range, &["spec", "limits"]);
    for (i, limit) in limits.iter().enumerate() {
        let path = list.index(i);
        let kind = text(limit, &["type"]);
        check::qualified_name(kind, &path.field("type"), errors);
        if limits[..i].iter().any(|l| text(l, &["type"]) == kind) {
            errors.duplicate(&path.field("type"), kind);
        }
        names(limit, &path, errors);
        if kind == "Pod" {
            for name in ["default", "defaultRequest"] {
                if set(limit, &[name]) {
                    errors.forbidden(&path.field(name), "may not be specified when `type` is 'Pod'");
                }
            }
        }
        if kind == "PersistentVolumeClaim"
            && at(limit, &["min", "storage"]).is_none()
            && at(limit, &["max", "storage"]).is_none()
        {
            errors.required(&path.field("limits"), "either minimum or maximum storage value is required");
        }
        relations(limit, &path, errors);
    }
}

fn names(limit: &Value, path: &Path<'_>, errors: &mut Errors) {
    for kind in AMOUNTS {
        let path = path.field(kind);
        for (name, _) in members(limit, &[kind]) {
            let before = errors.len();
            check::qualified_name(name, &path.key(name), errors);
            if errors.len() > before {
                errors.invalid(&path.key(name), name, "must be a standard resource type or fully qualified");
            }
        }
    }
}

fn relations(limit: &Value, path: &Path<'_>, errors: &mut Errors) {
    let amount = |kind: &str, name: &str| at(limit, &[kind, name]).map(quantity);
    let mut all: Vec<&str> = AMOUNTS
        .iter()
        .filter_map(|kind| limit.get(*kind)?.as_object())
        .flat_map(|amounts| amounts.keys().map(String::as_str))
        .collect();
    all.sort_unstable();
    all.dedup();
    for name in all {
        for (field, small, large) in [
            ("min", "min", "max"),
            ("defaultRequest", "min", "defaultRequest"),
            ("defaultRequest", "defaultRequest", "max"),
            ("defaultRequest", "defaultRequest", "default"),
            ("default", "min", "default"),
            ("default", "default", "max"),
        ] {
            if let (Some(less), Some(more)) = (amount(small, name), amount(large, name))
                && less > more
            {
                let detail = format!("{small} value {less} is greater than {large} value {more}");
                errors.invalid(&path.field(field).key(name), less.to_string(), detail);
            }
        }
        if let Some(ratio) = amount("maxLimitRequestRatio", name)
            && ratio < skep_api::Quantity::whole(1, skep_api::quantity::Format::DecimalSi)
        {
            errors.invalid(
                &path.field("maxLimitRequestRatio").key(name),
                ratio.to_string(),
                "ratio is less than 1",
            );
        }
    }
}
