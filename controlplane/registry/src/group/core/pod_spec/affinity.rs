//! Node and pod affinity.

use serde_json::Value;

use crate::check;
use crate::error::Errors;
use crate::field::{at, int, items, text};
use crate::path::Path;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Validates an affinity object.
pub(super) fn validate(affinity: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(node) = at(affinity, &["nodeAffinity"]) {
        let path = path.field("nodeAffinity");
        if let Some(required) = at(node, &[REQUIRED]) {
            node_selector(required, &path.field(REQUIRED), errors);
        }
        let list = path.field(PREFERRED);
        for (i, term) in items(node, &[PREFERRED]).iter().enumerate() {
            weight(term, &list.index(i), errors);
            node_term(&term["preference"], &list.index(i).field("preference"), errors);
        }
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        let Some(pod) = at(affinity, &[name]) else { continue };
        let path = path.field(name);
        let list = path.field(REQUIRED);
        for (i, term) in items(pod, &[REQUIRED]).iter().enumerate() {
            pod_term(term, &list.index(i), errors);
        }
        let list = path.field(PREFERRED);
        for (i, term) in items(pod, &[PREFERRED]).iter().enumerate() {
            weight(term, &list.index(i), errors);
            pod_term(&term["podAffinityTerm"], &list.index(i).field("podAffinityTerm"), errors);
        }
    }
}

fn weight(term: &Value, path: &Path<'_>, errors: &mut Errors) {
    let weight = int(term, &["weight"]).unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.field("weight"), weight, "must be in the range 1-100");
    }
}

/// Validates a node selector: at least one term.
pub(crate) fn node_selector(selector: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.field("nodeSelectorTerms");
    let terms = items(selector, &["nodeSelectorTerms"]);
    if terms.is_empty() {
        errors.required(&list, "must have at least one node selector term");
    }
    for (i, term) in terms.iter().enumerate() {
        node_term(term, &list.index(i), errors);
    }
}

fn node_term(term: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.field("matchExpressions");
    for (i, requirement) in items(term, &["matchExpressions"]).iter().enumerate() {
        node_requirement(requirement, &list.index(i), errors);
    }
    let list = path.field("matchFields");
    for (i, requirement) in items(term, &["matchFields"]).iter().enumerate() {
        let path = list.index(i);
        let values = items(requirement, &["values"]);
        match text(requirement, &["operator"]) {
            "In" | "NotIn" if values.len() != 1 => {
                let detail =
                    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.required(&path.field("values"), detail);
            }
            "In" | "NotIn" => {}
            other => errors.invalid(&path.field("operator"), other, "not a valid selector operator"),
        }
        let key = text(requirement, &["key"]);
        if key != "metadata.name" {
            errors.invalid(&path.field("key"), key, "not a valid field selector key");
        }
    }
}

fn node_requirement(requirement: &Value, path: &Path<'_>, errors: &mut Errors) {
    let values = items(requirement, &["values"]);
    let place = path.field("values");
    match text(requirement, &["operator"]) {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(&place, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.forbidden(&place, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.required(&place, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.invalid(&path.field("operator"), other, "not a valid selector operator"),
    }
    check::qualified_name(text(requirement, &["key"]), &path.field("key"), errors);
}

fn pod_term(term: &Value, path: &Path<'_>, errors: &mut Errors) {
    check::selector(term.get("labelSelector"), &path.field("labelSelector"), errors);
    check::selector(term.get("namespaceSelector"), &path.field("namespaceSelector"), errors);
    for namespace in items(term, &["namespaces"]).iter().filter_map(Value::as_str) {
        check::dns_label(namespace, &path.field("namespace"), errors);
    }
    for name in ["matchLabelKeys", "mismatchLabelKeys"] {
        let list = path.field(name);
        for (i, key) in items(term, &[name]).iter().filter_map(Value::as_str).enumerate() {
            check::qualified_name(key, &list.index(i), errors);
        }
        let other = items(term, &["mismatchLabelKeys"]);
        for (i, key) in items(term, &[name]).iter().enumerate() {
            if name == "matchLabelKeys" && other.contains(key) {
                errors.invalid(
                    &list.index(i),
                    key.clone(),
                    "exists in both matchLabelKeys and mismatchLabelKeys",
                );
            }
        }
        if !items(term, &[name]).is_empty() && at(term, &["labelSelector"]).is_none() {
            errors.forbidden(&list, "must not be specified when labelSelector is not set");
        }
    }
    let key = text(term, &["topologyKey"]);
    if key.is_empty() {
        errors.required(&path.field("topologyKey"), "can not be empty");
    }
    check::qualified_name(key, &path.field("topologyKey"), errors);
}
