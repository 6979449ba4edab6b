//! Whether a custom resource's schema is structural: every value has a type, and nothing hides in logical operators.

use serde_json::Value;

use crate::error::Errors;
use crate::field::{at, flag, items, members, text};
use crate::path::Path;

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];

/// Validates a root schema.
pub(super) fn validate(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    if text(schema, &["type"]) != "object" {
        let place = path.field("type");
        if text(schema, &["type"]).is_empty() {
            errors.required(&place, "must not be empty at the root");
        } else {
            errors.invalid(&place, text(schema, &["type"]), "must be object at the root");
        }
        return;
    }
    node(schema, path, errors);
}

fn node(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let kind = text(schema, &["type"]);
    let any = flag(schema, &["x-kubernetes-int-or-string"])
        || flag(schema, &["x-kubernetes-preserve-unknown-fields"]);
    if kind.is_empty() && !any {
        errors.required(&path.field("type"), "must not be empty for specified object fields");
    } else if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.not_supported(&path.field("type"), kind, TYPES);
    }
    if !kind.is_empty() && flag(schema, &["x-kubernetes-int-or-string"]) {
        errors.invalid(&path.field("type"), kind, "must be empty if x-kubernetes-int-or-string is true");
    }
    if flag(schema, &["uniqueItems"]) {
        errors.forbidden(
            &path.field("uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        );
    }
    for name in ["$ref", "definitions", "dependencies", "id", "patternProperties", "additionalItems"] {
        if at(schema, &[name]).is_some() {
            errors.forbidden(&path.field(name), "is not supported");
        }
    }
    let pattern = text(schema, &["pattern"]);
    if !pattern.is_empty() && regex::Regex::new(pattern).is_err() {
        errors.invalid(&path.field("pattern"), pattern, "must be a valid regular expression");
    }
    let properties = path.field("properties");
    for (name, inner) in members(schema, &["properties"]) {
        node(inner, &properties.key(name), errors);
    }
    match at(schema, &["additionalProperties"]) {
        Some(inner) if inner.is_object() => {
            if at(schema, &["properties"]).is_some() {
                errors.forbidden(
                    &path.field("additionalProperties"),
                    "additionalProperties and properties are mutual exclusive",
                );
            }
            node(inner, &path.field("additionalProperties"), errors);
        }
        Some(Value::Bool(false)) => {
            errors.forbidden(
                &path.field("additionalProperties"),
                "additionalProperties cannot be set to false",
            );
        }
        _ => {}
    }
    match at(schema, &["items"]) {
        Some(inner) if inner.is_object() => node(inner, &path.field("items"), errors),
        Some(_) => errors.forbidden(&path.field("items"), "items must be a schema object and not an array"),
        None if kind == "array" => errors.required(&path.field("items"), "must be specified"),
        None => {}
    }
    list_keys(schema, path, errors);
}

fn list_keys(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let kind = text(schema, &["x-kubernetes-list-type"]);
    if !kind.is_empty() && !matches!(kind, "atomic" | "map" | "set") {
        errors.not_supported(&path.field("x-kubernetes-list-type"), kind, &["atomic", "map", "set"]);
    }
    let keys = items(schema, &["x-kubernetes-list-map-keys"]);
    let place = path.field("x-kubernetes-list-map-keys");
    if kind == "map" && keys.is_empty() {
        errors.required(&place, "must not be empty if x-kubernetes-list-type is map");
    } else if kind != "map" && !keys.is_empty() {
        errors.forbidden(&place, "must be empty unless x-kubernetes-list-type is map");
    }
    for (i, key) in keys.iter().filter_map(Value::as_str).enumerate() {
        if at(schema, &["items", "properties", key]).is_none() {
            errors.invalid(&place.index(i), key, "must name a property of the items");
        } else {
            let required = items(schema, &["items", "required"]).iter().any(|r| r == key);
            let default = at(schema, &["items", "properties", key, "default"]).is_some();
            if !required && !default {
                let items = path.field("items");
                let properties = items.field("properties");
                let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                errors.required(&properties.key(key).field("default"), detail);
            }
        }
    }
}
