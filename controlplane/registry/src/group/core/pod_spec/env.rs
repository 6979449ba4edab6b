//! Environment variables and what they are taken from.

use serde_json::Value;

use crate::check;
use crate::error::Errors;
use crate::field::{at, items, text};
use crate::metadata::format;
use crate::path::Path;

const SOURCES: &[&str] = &["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const KNOWN_FIELDS: &[&str] =
    &["metadata.labels", "metadata.annotations", "spec.restartPolicy", "spec.schedulerName", "status.phase"];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const ENV_NAME: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";

/// The list `env`.
pub(super) fn variables(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.field("env");
    for (i, variable) in items(container, &["env"]).iter().enumerate() {
        let path = list.index(i);
        let name = text(variable, &["name"]);
        if name.is_empty() {
            errors.required(&path.field("name"), "");
        } else if !format::is_env_name(name) {
            errors.invalid(&path.field("name"), name, ENV_NAME);
        }
        if let Some(from) = at(variable, &["valueFrom"]) {
            value_from(variable, from, &path.field("valueFrom"), errors);
        }
    }
}

fn value_from(variable: &Value, from: &Value, path: &Path<'_>, errors: &mut Errors) {
    let count = SOURCES.iter().filter(|s| at(from, &[s]).is_some()).count();
    if let Some(field) = at(from, &["fieldRef"]) {
        field_ref(field, &path.field("fieldRef"), errors);
    }
    if let Some(field) = at(from, &["resourceFieldRef"]) {
        resource_field_ref(field, &path.field("resourceFieldRef"), errors);
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(reference) = at(from, &[name]) {
            key_ref(reference, &path.field(name), errors);
        }
    }
    if count == 0 {
        let detail =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
        errors.invalid(path, "", detail);
    } else if !text(variable, &["value"]).is_empty() {
        errors.invalid(path, "", "may not be specified when `value` is not empty");
    } else if count > 1 {
        errors.invalid(path, "", "may not have more than one field specified at a time");
    }
}

fn field_ref(field: &Value, path: &Path<'_>, errors: &mut Errors) {
    let place = path.field("fieldPath");
    let name = text(field, &["fieldPath"]);
    if name.is_empty() {
        errors.required(&place, "");
        return;
    }
    if let Some((map, key)) = name.strip_suffix("']").and_then(|n| n.split_once("['")) {
        match map {
            "metadata.labels" | "metadata.annotations" => {
                check::qualified_name(&key.to_lowercase(), path, errors)
            }
            _ => errors.invalid(path, name, "does not support subscript"),
        }
    } else if KNOWN_FIELDS.contains(&name) {
        errors.not_supported(&place, name, ENV_FIELDS);
    } else if !ENV_FIELDS.contains(&name) {
        errors.invalid(
            &place,
            name,
            format!("error converting fieldPath: field label not supported: {name}"),
        );
    }
}

/// A reference to a resource of a container.
pub(super) fn resource_field_ref(field: &Value, path: &Path<'_>, errors: &mut Errors) {
    let resource = text(field, &["resource"]);
    if resource.is_empty() {
        errors.required(&path.field("resource"), "");
        return;
    }
    let huge = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if !RESOURCES.contains(&resource) && !huge {
        errors.not_supported(&path.field("resource"), resource, RESOURCES);
        return;
    }
    let divisor = text(field, &["divisor"]);
    let bytes = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let allowed: &[&str] = if resource.ends_with(".cpu") { &["1m", "1"] } else { &bytes };
    if !matches!(divisor, "" | "0") && !allowed.contains(&divisor) {
        let detail = format!("only divisor's values {} are supported with {resource}", allowed.join(", "));
        errors.invalid(&path.field("divisor"), divisor, detail);
    }
}

fn key_ref(reference: &Value, path: &Path<'_>, errors: &mut Errors) {
    check::subdomain(text(reference, &["name"]), &path.field("name"), errors);
    let key = text(reference, &["key"]);
    if key.is_empty() {
        errors.required(&path.field("key"), "");
    } else if !format::is_config_key(key) {
        errors.invalid(&path.field("key"), key, CONFIG_KEY);
    }
}

/// The list `envFrom`.
pub(super) fn sources(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.field("envFrom");
    for (i, source) in items(container, &["envFrom"]).iter().enumerate() {
        let path = list.index(i);
        let prefix = text(source, &["prefix"]);
        if !prefix.is_empty() && !format::is_env_name(prefix) {
            errors.invalid(&path.field("prefix"), prefix, ENV_NAME);
        }
        let mut count = 0;
        for name in ["configMapRef", "secretRef"] {
            let Some(reference) = at(source, &[name]) else { continue };
            count += 1;
            let path = path.field(name);
            if check::required(reference, "name", &path, errors) {
                check::subdomain(text(reference, &["name"]), &path.field("name"), errors);
            }
        }
        if count == 0 {
            errors.invalid(&list, "", "must specify one of: `configMapRef` or `secretRef`");
        } else if count > 1 {
            errors.invalid(&list, "", "may not have more than one field specified at a time");
        }
    }
}
