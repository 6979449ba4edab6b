//! Checks a value against a structural schema (the JSON-schema keywords that Kubernetes allows in definitions).
//!
//! `x-kubernetes-validations` (CEL) belongs to admission and is not evaluated here.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde_json::{Value, json};
use skep_api::time;

use crate::{
    error::{Errors, Reason},
    field::{at, flag, items, members, text},
    path::Path,
};

/// The regular expressions of a schema, compiled once.
#[derive(Debug, Default)]
pub(super) struct Patterns(BTreeMap<String, Regex>);

impl Patterns {
    pub(super) fn of(schema: Option<&Value>) -> Self {
        let mut found = Self::default();
        if let Some(schema) = schema {
            found.collect(schema);
        }
        found
    }

    fn collect(&mut self, value: &Value) {
        match value {
            Value::Object(object) => {
                if let Some(Value::String(pattern)) = object.get("pattern")
                    && let Ok(regex) = Regex::new(pattern)
                {
                    self.0.insert(pattern.clone(), regex);
                }
                object.values().for_each(|inner| self.collect(inner));
            }
            Value::Array(list) => list.iter().for_each(|inner| self.collect(inner)),
            _ => {}
        }
    }
}

/// Checks an object, metadata aside.
pub(super) fn validate(object: &Value, schema: &Value, patterns: &Patterns, errors: &mut Errors) {
    Check { patterns }.value(object, schema, &Path::ROOT, true, errors);
}

struct Check<'a> {
    patterns: &'a Patterns,
}

impl Check<'_> {
    fn value(&self, value: &Value, schema: &Value, path: &Path<'_>, is_resource: bool, errors: &mut Errors) {
        if value.is_null() && flag(schema, &["nullable"]) {
            return;
        }
        if !has_type(value, schema) {
            let wanted = if flag(schema, &["x-kubernetes-int-or-string"]) {
                "integer,string"
            } else {
                text(schema, &["type"])
            };
            let actual = type_name(value);
            let detail = format!("{path} in body must be of type {wanted}: {actual:?}");
            errors.push(Reason::TypeInvalid, path, actual.into(), detail);
            return;
        }
        match value {
            Value::String(text) => self.text(text, schema, path, errors),
            Value::Number(_) => number(value, schema, path, errors),
            Value::Array(list) => self.list(list, schema, path, errors),
            Value::Object(_) => {
                let is_resource = is_resource || flag(schema, &["x-kubernetes-embedded-resource"]);
                self.object(value, schema, path, is_resource, errors);
            }
            _ => {}
        }
        let allowed = items(schema, &["enum"]);
        if !allowed.is_empty() && !allowed.contains(value) {
            let shown: Vec<_> = allowed.iter().map(shown).collect();
            errors.not_supported(path, value.clone(), &shown.iter().map(String::as_str).collect::<Vec<_>>());
        }
        self.combined(value, schema, path, errors);
    }

    fn text(&self, value: &str, schema: &Value, path: &Path<'_>, errors: &mut Errors) {
        let length = value.chars().count() as u64;
        if let Some(min) = schema["minLength"].as_u64().filter(|min| length < *min) {
            errors.invalid(path, value, format!("{path} in body should be at least {min} chars long"));
        }
        if let Some(max) = schema["maxLength"].as_u64().filter(|max| length > *max) {
            errors.too_long(path, usize::try_from(max).unwrap_or(usize::MAX));
        }
        let pattern = text(schema, &["pattern"]);
        if let Some(regex) = self.patterns.0.get(pattern)
            && !regex.is_match(value)
        {
            errors.invalid(path, value, format!("{path} in body should match '{pattern}'"));
        }
        let format = text(schema, &["format"]);
        if !has_format(value, format) {
            let detail = format!("{path} in body must be of type {format}: {value:?}");
            errors.push(Reason::TypeInvalid, path, value.into(), detail);
        }
    }

    fn list(&self, list: &[Value], schema: &Value, path: &Path<'_>, errors: &mut Errors) {
        let length = list.len();
        if let Some(min) = schema["minItems"].as_u64().filter(|min| (length as u64) < *min) {
            errors.invalid(path, length, format!("{path} in body should have at least {min} items"));
        }
        if let Some(max) = schema["maxItems"].as_u64().filter(|max| length as u64 > *max) {
            errors.too_many(path, length, usize::try_from(max).unwrap_or(usize::MAX));
        }
        if let Some(inner) = at(schema, &["items"]) {
            for (index, item) in list.iter().enumerate() {
                self.value(item, inner, &path.index(index), false, errors);
            }
        }
        match text(schema, &["x-kubernetes-list-type"]) {
            "set" => duplicates(list.iter().map(Clone::clone), path, errors),
            "map" => keyed(list, schema, path, errors),
            _ => {}
        }
    }

    fn object(&self, value: &Value, schema: &Value, path: &Path<'_>, is_resource: bool, errors: &mut Errors) {
        let count = value.as_object().map_or(0, serde_json::Map::len);
        if let Some(min) = schema["minProperties"].as_u64().filter(|min| (count as u64) < *min) {
            errors.invalid(path, count, format!("{path} in body should have at least {min} properties"));
        }
        if let Some(max) = schema["maxProperties"].as_u64().filter(|max| count as u64 > *max) {
            errors.too_many(path, count, usize::try_from(max).unwrap_or(usize::MAX));
        }
        for name in items(schema, &["required"]).iter().filter_map(Value::as_str) {
            if value.get(name).is_none() {
                errors.required(&path.field(name), "");
            }
        }
        let additional = at(schema, &["additionalProperties"]).filter(|inner| inner.is_object());
        for (name, member) in members(value, &[]) {
            if is_resource && matches!(name, "apiVersion" | "kind" | "metadata") {
                continue;
            }
            if let Some(inner) = at(schema, &["properties", name]).or(additional) {
                self.value(member, inner, &path.field(name), false, errors);
            }
        }
    }

    fn combined(&self, value: &Value, schema: &Value, path: &Path<'_>, errors: &mut Errors) {
        let failures = |inner: &Value| {
            let mut found = Errors::new();
            self.value(value, inner, path, false, &mut found);
            found.len()
        };
        let matching =
            |name: &str| items(schema, &[name]).iter().filter(|inner| failures(inner) == 0).count();
        for inner in items(schema, &["allOf"]) {
            self.value(value, inner, path, false, errors);
        }
        // Clients know these findings without a field.
        let nowhere = Path::new("<nil>");
        if at(schema, &["anyOf"]).is_some() && matching("anyOf") == 0 {
            let detail = format!("{path} in body must validate at least one schema (anyOf)");
            errors.invalid(&nowhere, value.clone(), detail);
        }
        if at(schema, &["oneOf"]).is_some() && matching("oneOf") != 1 {
            let detail = format!("{path} in body must validate one and only one schema (oneOf)");
            errors.invalid(&nowhere, value.clone(), detail);
        }
        if at(schema, &["not"]).is_some_and(|inner| failures(inner) == 0) {
            errors.invalid(path, value.clone(), format!("{path} in body must not validate the schema (not)"));
        }
    }
}

fn has_type(value: &Value, schema: &Value) -> bool {
    if flag(schema, &["x-kubernetes-int-or-string"]) {
        return value.is_string() || is_whole(value);
    }
    match text(schema, &["type"]) {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => is_whole(value),
        _ => true,
    }
}

fn is_whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_whole(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn number(value: &Value, schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(number) = value.as_f64() else { return };
    if let Some(min) = schema["minimum"].as_f64() {
        let exclusive = flag(schema, &["exclusiveMinimum"]);
        if number < min || exclusive && number <= min {
            let words = if exclusive { "greater than" } else { "greater than or equal to" };
            errors.invalid(
                path,
                value.clone(),
                format!("{path} in body should be {words} {}", schema["minimum"]),
            );
        }
    }
    if let Some(max) = schema["maximum"].as_f64() {
        let exclusive = flag(schema, &["exclusiveMaximum"]);
        if number > max || exclusive && number >= max {
            let words = if exclusive { "less than" } else { "less than or equal to" };
            errors.invalid(
                path,
                value.clone(),
                format!("{path} in body should be {words} {}", schema["maximum"]),
            );
        }
    }
    if let Some(step) = schema["multipleOf"].as_f64().filter(|step| *step > 0.0) {
        let times = number / step;
        if (times - times.round()).abs() > 1e-9 {
            let detail = format!("{path} in body should be a multiple of {}", schema["multipleOf"]);
            errors.invalid(path, value.clone(), detail);
        }
    }
}

fn duplicates(list: impl Iterator<Item = Value>, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, item) in list.enumerate() {
        if !seen.insert(item.to_string()) {
            errors.duplicate(&path.index(index), item);
        }
    }
}

/// Items of a map list have all their keys, and no two the same.
fn keyed(list: &[Value], schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let names: Vec<_> =
        items(schema, &["x-kubernetes-list-map-keys"]).iter().filter_map(Value::as_str).collect();
    for (index, item) in list.iter().enumerate() {
        let said = |name: &str| {
            at(schema, &["items", "properties", name, "default"]).is_some()
                || items(schema, &["items", "required"]).iter().any(|required| required == name)
        };
        for name in names.iter().filter(|name| item.get(**name).is_none() && !said(name)) {
            errors.required(&path.index(index).field(name), "this property is in x-kubernetes-list-map-keys");
        }
    }
    let key = |item: &Value| {
        names.iter().map(|name| ((*name).to_owned(), item.get(*name).cloned().unwrap_or_default())).collect()
    };
    duplicates(list.iter().map(|item| Value::Object(key(item))), path, errors);
}

/// Whether a text has one of the formats that are checked; all others pass.
fn has_format(value: &str, format: &str) -> bool {
    match format {
        "date-time" => time::parse(value).is_some(),
        "date" => value.parse::<jiff::civil::Date>().is_ok(),
        "ipv4" => value.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => value.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => value.split_once('/').is_some_and(|(address, bits)| {
            address.parse::<std::net::IpAddr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= 128)
        }),
        "byte" => crate::base64::wrong_byte(value).is_none(),
        "uuid" => value.len() == 36 && value.chars().all(|c| c.is_ascii_hexdigit() || c == '-'),
        _ => true,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => json!(other).to_string(),
    }
}
