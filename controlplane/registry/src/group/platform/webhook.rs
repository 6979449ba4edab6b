//! Validating and mutating webhook configurations.

use serde_json::{Map, Value};

use crate::check;
use crate::error::Errors;
use crate::field::{at, fill, fill_empty, int, items, items_mut, set, text};
use crate::metadata::format;
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

pub(crate) static VALIDATING: Strategy = Strategy {
    unconditional_update: false,
    generation: true,
    default: |config| items_mut(config, &["webhooks"]).for_each(default),
    validate,
    row: |config, now| {
        vec![row::name(config), items(config, &["webhooks"]).len().into(), row::age(config, now)]
    },
    ..Strategy::BASE
};

pub(crate) static MUTATING: Strategy = Strategy {
    default: |config| {
        for webhook in items_mut(config, &["webhooks"]) {
            default(webhook);
            fill_empty(webhook, "reinvocationPolicy", "Never");
        }
    },
    ..VALIDATING
};

fn default(webhook: &mut Value) {
    fill_empty(webhook, "failurePolicy", "Fail");
    fill_empty(webhook, "matchPolicy", "Equivalent");
    fill(webhook, "namespaceSelector", Map::new());
    fill(webhook, "objectSelector", Map::new());
    fill(webhook, "timeoutSeconds", 10);
    if let Some(service) = webhook.get_mut("clientConfig").and_then(|c| c.get_mut("service")) {
        fill(service, "port", 443);
    }
    for rule in items_mut(webhook, &["rules"]) {
        fill_empty(rule, "scope", "*");
    }
}

fn validate(config: &Value, errors: &mut Errors) {
    let list = Path::new("webhooks");
    let webhooks = items(config, &["webhooks"]);
    for (i, one) in webhooks.iter().enumerate() {
        let path = list.index(i);
        webhook(one, &path, errors);
        let name = text(one, &["name"]);
        if !name.is_empty() && webhooks[..i].iter().any(|w| text(w, &["name"]) == name) {
            errors.duplicate(&path.field("name"), name);
        }
    }
}

fn webhook(webhook: &Value, path: &Path<'_>, errors: &mut Errors) {
    let name = text(webhook, &["name"]);
    if name.is_empty() {
        errors.required(&path.field("name"), "");
    } else if !format::is_dns_subdomain(name) || name.split('.').count() < 3 {
        errors.invalid(
            &path.field("name"),
            name,
            "should be a domain with at least three segments separated by dots",
        );
    }
    let list = path.field("rules");
    for (i, one) in items(webhook, &["rules"]).iter().enumerate() {
        rule(one, &list.index(i), errors);
    }
    check::one_of(webhook, "failurePolicy", &["Fail", "Ignore"], path, errors);
    check::one_of(webhook, "matchPolicy", &["Equivalent", "Exact"], path, errors);
    check::one_of(webhook, "reinvocationPolicy", &["IfNeeded", "Never"], path, errors);
    match text(webhook, &["sideEffects"]) {
        "" => errors.required(&path.field("sideEffects"), "must specify one of None, NoneOnDryRun"),
        _ => check::one_of(webhook, "sideEffects", &["None", "NoneOnDryRun"], path, errors),
    }
    let timeout = int(webhook, &["timeoutSeconds"]).unwrap_or(10);
    if !(1..=30).contains(&timeout) {
        errors.invalid(
            &path.field("timeoutSeconds"),
            timeout,
            "the timeout value must be between 1 and 30 seconds",
        );
    }
    for name in ["namespaceSelector", "objectSelector"] {
        check::selector(webhook.get(name), &path.field(name), errors);
    }
    versions(webhook, &path.field("admissionReviewVersions"), errors);
    client(webhook, &path.field("clientConfig"), errors);
    let list = path.field("matchConditions");
    for (i, condition) in items(webhook, &["matchConditions"]).iter().enumerate() {
        let path = list.index(i);
        if check::required(condition, "name", &path, errors) {
            check::qualified_name(text(condition, &["name"]), &path.field("name"), errors);
        }
        check::required(condition, "expression", &path, errors);
    }
}

fn versions(webhook: &Value, path: &Path<'_>, errors: &mut Errors) {
    let versions = items(webhook, &["admissionReviewVersions"]);
    if versions.is_empty() {
        errors.required(path, "must specify one of v1, v1beta1");
    } else if !versions.iter().any(|v| v == "v1" || v == "v1beta1") {
        errors.invalid(path, versions.to_vec(), "must include at least one of v1, v1beta1");
    }
}

fn client(webhook: &Value, path: &Path<'_>, errors: &mut Errors) {
    let config = &webhook["clientConfig"];
    match (at(config, &["url"]), at(config, &["service"])) {
        (None, None) | (Some(_), Some(_)) => {
            errors.required(path, "exactly one of url or service is required");
        }
        (Some(url), None) => {
            let url = url.as_str().unwrap_or_default();
            if !url.starts_with("https://") {
                errors.invalid(&path.field("url"), url, "'https' is the only allowed URL scheme");
            } else if url.contains(['?', '#', '@']) {
                errors.invalid(
                    &path.field("url"),
                    url,
                    "user info, query and fragment are not permitted in the URL",
                );
            }
        }
        (None, Some(service)) => {
            let path = path.field("service");
            if text(service, &["name"]).is_empty() {
                errors.required(&path.field("name"), "service name is required");
            }
            if text(service, &["namespace"]).is_empty() {
                errors.required(&path.field("name"), "service namespace is required");
            }
            check::port_number(int(service, &["port"]).unwrap_or(443), &path.field("port"), errors);
        }
    }
}

/// One rule with its operations.
pub(super) fn rule(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let operations = items(rule, &["operations"]);
    let place = path.field("operations");
    if operations.is_empty() {
        errors.required(&place, "");
    }
    if operations.len() > 1 && operations.iter().any(|o| o == "*") {
        errors.invalid(&place, operations.to_vec(), "if '*' is present, must not specify other operations");
    }
    for (i, operation) in operations.iter().filter_map(Value::as_str).enumerate() {
        if !OPERATIONS.contains(&operation) {
            errors.not_supported(&place.index(i), operation, OPERATIONS);
        }
    }
    for name in ["apiGroups", "apiVersions", "resources"] {
        let values = items(rule, &[name]);
        if !set(rule, &[name]) {
            errors.required(&path.field(name), "");
        }
        if name != "resources" && values.len() > 1 && values.iter().any(|v| v == "*") {
            errors.invalid(&path.field(name), values.to_vec(), "if '*' is present, must not specify others");
        }
    }
    resources(items(rule, &["resources"]), &path.field("resources"), errors);
    check::one_of(rule, "scope", &["*", "Cluster", "Namespaced"], path, errors);
}

fn resources(resources: &[Value], path: &Path<'_>, errors: &mut Errors) {
    let all: Vec<&str> = resources.iter().filter_map(Value::as_str).collect();
    let plain = all.iter().filter(|r| !r.contains('/')).count();
    if all.contains(&"*/*") && all.len() > 1 {
        errors.invalid(path, resources.to_vec(), "if '*/*' is present, must not specify other resources");
    }
    if all.contains(&"*") && plain > 1 {
        errors.invalid(
            path,
            resources.to_vec(),
            "if '*' is present, must not specify other resources without subresources",
        );
    }
    for (i, resource) in all.iter().enumerate() {
        if resource.is_empty() {
            errors.required(&path.index(i), "");
        }
    }
}
