//! Admission policies and their bindings. Their expressions are compiled by the API server.

use serde_json::{Map, Value};

use super::webhook;
use crate::check;
use crate::error::Errors;
use crate::field::{at, fill, fill_empty, items, items_mut, set, text};
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];

pub(crate) static VALIDATING: Strategy = Strategy {
    unconditional_update: false,
    default: |policy| {
        if let Some(spec) = policy.get_mut("spec") {
            fill_empty(spec, "failurePolicy", "Fail");
            if let Some(constraints) = spec.get_mut("matchConstraints") {
                match_resources(constraints);
            }
        }
    },
    validate: |policy, errors| {
        validate_policy(policy, errors);
        let path = Path::new("spec");
        let spec = &policy["spec"];
        if !set(spec, &["validations"]) && !set(spec, &["auditAnnotations"]) {
            let detail = "validations or auditAnnotations must be specified";
            errors.required(&path.field("validations"), detail);
            errors.required(&path.field("auditAnnotations"), detail);
        }
        let list = path.field("validations");
        for (i, validation) in items(spec, &["validations"]).iter().enumerate() {
            let path = list.index(i);
            check::required(validation, "expression", &path, errors);
            check::one_of(validation, "reason", REASONS, &path, errors);
        }
        let list = path.field("auditAnnotations");
        for (i, annotation) in items(spec, &["auditAnnotations"]).iter().enumerate() {
            let path = list.index(i);
            if check::required(annotation, "key", &path, errors) {
                check::qualified_name(text(annotation, &["key"]), &path.field("key"), errors);
            }
            check::required(annotation, "valueExpression", &path, errors);
        }
    },
    row: |policy, now| policy_cells(policy, "validations", now),
    ..Strategy::WITH_STATUS
};

pub(crate) static MUTATING: Strategy = Strategy {
    unconditional_update: false,
    status: false,
    default: |policy| {
        (VALIDATING.default)(policy);
        if let Some(spec) = policy.get_mut("spec") {
            fill_empty(spec, "reinvocationPolicy", "Never");
        }
    },
    validate: |policy, errors| {
        validate_policy(policy, errors);
        let path = Path::new("spec");
        if !set(policy, &["spec", "mutations"]) {
            errors.required(&path.field("mutations"), "mutations must contain at least one item");
        }
    },
    row: |policy, now| policy_cells(policy, "mutations", now),
    ..Strategy::WITH_STATUS
};

pub(crate) static BINDINGS: Strategy = Strategy {
    unconditional_update: false,
    generation: true,
    default: |binding| {
        if let Some(resources) = binding.get_mut("spec").and_then(|s| s.get_mut("matchResources")) {
            match_resources(resources);
        }
    },
    validate: validate_binding,
    row: |binding, now| {
        let parameter = match at(binding, &["spec", "paramRef"]) {
            Some(p) if set(p, &["namespace"]) => {
                format!("{}/{}", text(p, &["namespace"]), text(p, &["name"]))
            }
            Some(p) if set(p, &["name"]) => format!("*/{}", text(p, &["name"])),
            Some(_) => "*/*".to_owned(),
            None => "<unset>".to_owned(),
        };
        vec![
            row::name(binding),
            text(binding, &["spec", "policyName"]).into(),
            parameter.into(),
            row::age(binding, now),
        ]
    },
    ..Strategy::BASE
};

fn match_resources(resources: &mut Value) {
    fill_empty(resources, "matchPolicy", "Equivalent");
    fill(resources, "namespaceSelector", Map::new());
    fill(resources, "objectSelector", Map::new());
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in items_mut(resources, &[list]) {
            fill_empty(rule, "scope", "*");
        }
    }
}

fn validate_policy(policy: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &policy["spec"];
    check::one_of(spec, "failurePolicy", &["Fail", "Ignore"], &path, errors);
    let place = path.field("matchConstraints");
    match at(spec, &["matchConstraints"]) {
        None => errors.required(&place, ""),
        Some(constraints) => {
            let list = place.field("resourceRules");
            let rules = items(constraints, &["resourceRules"]);
            if rules.is_empty() {
                errors.required(&list, "");
            }
            for (i, rule) in rules.iter().enumerate() {
                webhook::rule(rule, &list.index(i), errors);
            }
        }
    }
    if let Some(kind) = at(spec, &["paramKind"]) {
        let path = path.field("paramKind");
        check::required(kind, "apiVersion", &path, errors);
        check::required(kind, "kind", &path, errors);
    }
    let list = path.field("matchConditions");
    for (i, condition) in items(spec, &["matchConditions"]).iter().enumerate() {
        let path = list.index(i);
        if check::required(condition, "name", &path, errors) {
            check::qualified_name(text(condition, &["name"]), &path.field("name"), errors);
        }
        check::required(condition, "expression", &path, errors);
    }
    let list = path.field("variables");
    for (i, variable) in items(spec, &["variables"]).iter().enumerate() {
        let path = list.index(i);
        let name = text(variable, &["name"]);
        let identifier = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !name.starts_with(|c: char| c.is_ascii_digit());
        if check::required(variable, "name", &path, errors) && !identifier {
            errors.invalid(
                &path.field("name"),
                name,
                "must be an identifier of letters, digits and underscores",
            );
        }
        check::required(variable, "expression", &path, errors);
    }
}

fn validate_binding(binding: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &binding["spec"];
    check::required(spec, "policyName", &path, errors);
    if text(binding, &["kind"]) != "ValidatingAdmissionPolicyBinding" {
        return;
    }
    let list = path.field("validationActions");
    let actions = items(spec, &["validationActions"]);
    if actions.is_empty() {
        errors.required(&list, "at least one validation action is required");
    }
    for (i, action) in actions.iter().filter_map(Value::as_str).enumerate() {
        if !matches!(action, "Audit" | "Deny" | "Warn") {
            errors.not_supported(&list.index(i), action, &["Audit", "Deny", "Warn"]);
        } else if actions[..i].iter().any(|a| a == action) {
            errors.duplicate(&list.index(i), action);
        }
    }
    if actions.iter().any(|a| a == "Deny") && actions.iter().any(|a| a == "Warn") {
        errors.invalid(&list, actions.to_vec(), "must not contain both Deny and Warn");
    }
    if let Some(parameter) = at(spec, &["paramRef"]) {
        let path = path.field("paramRef");
        let selected = at(parameter, &["selector"]).is_some();
        match (!text(parameter, &["name"]).is_empty(), selected) {
            (true, true) => {
                for name in ["name", "selector"] {
                    errors.forbidden(&path.field(name), "name and selector are mutually exclusive");
                }
            }
            (false, false) => errors.required(&path, "one of name or selector must be specified"),
            _ => {}
        }
        check::one_of(parameter, "parameterNotFoundAction", &["Allow", "Deny"], &path, errors);
        check::required(parameter, "parameterNotFoundAction", &path, errors);
    }
}

fn policy_cells(policy: &Value, list: &str, now: jiff::Timestamp) -> Vec<Value> {
    let kind = match at(policy, &["spec", "paramKind"]) {
        Some(kind) => format!("{}/{}", text(kind, &["apiVersion"]), text(kind, &["kind"])),
        None => "<unset>".to_owned(),
    };
    vec![row::name(policy), items(policy, &["spec", list]).len().into(), kind.into(), row::age(policy, now)]
}
