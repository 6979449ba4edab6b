//! ResourceQuotas.

use jiff::Timestamp;
use serde_json::Value;

use crate::check::{self, quantity};
use crate::error::Errors;
use crate::field::{items, members, text};
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
const COUNTED: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

pub(crate) static STRATEGY: Strategy = Strategy { status: true, validate, row: cells, ..Strategy::BASE };

fn validate(quota: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    let hard = spec.field("hard");
    for (name, amount) in members(quota, &["spec", "hard"]) {
        let path = hard.key(name);
        check::qualified_name(name, &path, errors);
        let known = name.contains('/') || STANDARD.contains(&name) || name.starts_with("requests.hugepages-");
        if !known {
            errors.invalid(&path, name, "must be a standard resource type or fully qualified");
            if crate::metadata::format::qualified_name_problems(name).is_empty() {
                errors.invalid(&path, name, "must be a standard resource for quota");
            }
        }
        check::quantity_non_negative(amount, &path, errors);
        if (COUNTED.contains(&name) || name.starts_with("count/")) && !quantity(amount).is_whole() {
            errors.invalid(&path, amount.clone(), "must be an integer");
        }
    }
    scopes(quota, &spec.field("scopes"), errors);
    let selector = spec.field("scopeSelector");
    let expressions = selector.field("matchExpressions");
    for expression in items(quota, &["spec", "scopeSelector", "matchExpressions"]) {
        selector_expression(expression, &expressions, errors);
    }
}

fn scopes(quota: &Value, path: &Path<'_>, errors: &mut Errors) {
    let scopes: Vec<&str> = items(quota, &["spec", "scopes"]).iter().filter_map(Value::as_str).collect();
    let shown = || Value::from(scopes.iter().map(|s| Value::from(*s)).collect::<Vec<_>>());
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            errors.invalid(path, shown(), "unsupported scope");
        }
        let compute = |name: &str| !COUNTED.contains(&name) || name != "pods";
        if *scope == "BestEffort" && members(quota, &["spec", "hard"]).any(|(n, _)| compute(n)) {
            errors.invalid(path, shown(), "unsupported scope applied to resource");
        }
    }
    for (a, b) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if scopes.contains(&a) && scopes.contains(&b) {
            errors.invalid(path, shown(), "conflicting scopes");
        }
    }
}

fn selector_expression(expression: &Value, path: &Path<'_>, errors: &mut Errors) {
    let scope = text(expression, &["scopeName"]);
    if !SCOPES.contains(&scope) {
        errors.invalid(&path.field("scopeName"), scope, "unsupported scope");
    }
    let operator = text(expression, &["operator"]);
    if !matches!(scope, "PriorityClass" | "VolumeAttributesClass") && operator != "Exists" {
        errors.invalid(
            &path.field("operator"),
            operator,
            "must be 'Exist' when scope is any of the fixed scopes",
        );
        return;
    }
    let values = items(expression, &["values"]);
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(
                &path.field("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn'",
            );
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.invalid(
                &path.field("values"),
                values.to_vec(),
                "must be no value when `operator` is 'Exist'",
            );
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.invalid(&path.field("operator"), other, "not a valid selector operator"),
    }
}

fn cells(quota: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let mut names: Vec<(&str, &Value)> = members(quota, &["status", "hard"]).collect();
    names.sort_by_key(|(name, _)| *name);
    for (name, hard) in names {
        let used = text(quota, &["status", "used", name]);
        let used = if used.is_empty() { "0" } else { used };
        let cell = format!("{name}: {used}/{}", hard.as_str().unwrap_or_default());
        if name.starts_with("limits") { limits.push(cell) } else { requests.push(cell) }
    }
    vec![row::name(quota), requests.join(", ").into(), limits.join(", ").into(), row::age(quota, now)]
}
