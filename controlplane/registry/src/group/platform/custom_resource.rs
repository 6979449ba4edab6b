//! CustomResourceDefinitions: their own defaults and validation. What they define is in [`crate::custom`].

use serde_json::{Value, json};

use crate::check;
use crate::error::Errors;
use crate::field::{at, fill_empty, flag, items, items_mut, object, text};
use crate::metadata::format;
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

mod structural;

pub(crate) static STRATEGY: Strategy = Strategy {
    default,
    prepare_create: |definition| {
        let stored: Vec<Value> = items(definition, &["spec", "versions"])
            .iter()
            .filter(|v| flag(v, &["storage"]))
            .map(|v| v["name"].clone())
            .collect();
        let names = json!({"plural": "", "kind": ""});
        definition["status"] = json!({"conditions": null, "acceptedNames": names, "storedVersions": stored});
    },
    prepare_update: |new, old| {
        let mut stored = items(old, &["status", "storedVersions"]).to_vec();
        for version in items(new, &["spec", "versions"]).iter().filter(|v| flag(v, &["storage"])) {
            if !stored.contains(&version["name"]) {
                stored.push(version["name"].clone());
            }
        }
        object(new, "status")["storedVersions"] = stored.into();
    },
    validate,
    validate_change: |new, old, errors| {
        let path = Path::new("spec");
        let (now, before) = (&new["spec"], &old["spec"]);
        check::immutable(now, before, &["group", "scope"], &path, errors);
        check::immutable(&now["names"], &before["names"], &["plural", "kind"], &path.field("names"), errors);
    },
    row: |definition, _| {
        vec![row::name(definition), text(definition, &["metadata", "creationTimestamp"]).into()]
    },
    ..Strategy::WITH_STATUS
};

fn default(definition: &mut Value) {
    let spec = object(definition, "spec");
    let kind = text(spec, &["names", "kind"]).to_owned();
    if !kind.is_empty() {
        let names = object(spec, "names");
        fill_empty(names, "singular", kind.to_lowercase());
        fill_empty(names, "listKind", format!("{kind}List"));
    }
    fill_empty(object(spec, "conversion"), "strategy", "None");
    for version in items_mut(spec, &["versions"]) {
        for column in items_mut(version, &["additionalPrinterColumns"]) {
            if column.get("priority").is_some_and(|p| p == 0) {
                crate::field::remove(column, "priority");
            }
        }
    }
}

fn validate(definition: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &definition["spec"];
    let group = text(spec, &["group"]);
    let plural = text(spec, &["names", "plural"]);
    let expected = format!("{plural}.{group}");
    if text(definition, &["metadata", "name"]) != expected {
        let metadata = Path::new("metadata");
        let detail = format!("must be spec.names.plural+\".\"+spec.group, that is {expected}");
        errors.invalid(&metadata.field("name"), text(definition, &["metadata", "name"]), detail);
    }
    if group.is_empty() {
        errors.required(&path.field("group"), "");
    } else if !format::is_dns_subdomain(group) {
        check::subdomain(group, &path.field("group"), errors);
    } else if !group.contains('.') {
        errors.invalid(&path.field("group"), group, "should be a domain with at least one dot");
    }
    check::required_one_of(spec, "scope", &["Cluster", "Namespaced"], &path, errors);
    names(&spec["names"], &path.field("names"), errors);
    versions(definition, &path, errors);
    check::one_of(&spec["conversion"], "strategy", &["None", "Webhook"], &path.field("conversion"), errors);
}

fn names(names: &Value, path: &Path<'_>, errors: &mut Errors) {
    for name in ["plural", "singular"] {
        let value = text(names, &[name]);
        if value.is_empty() {
            errors.required(&path.field(name), "");
        } else if !format::is_service_name(value) {
            errors.invalid(&path.field(name), value, "must be a DNS-1035 label");
        }
    }
    for name in ["kind", "listKind"] {
        let value = text(names, &[name]);
        if value.is_empty() {
            errors.required(&path.field(name), "");
        } else if !format::is_service_name(&value.to_lowercase()) {
            errors.invalid(
                &path.field(name),
                value,
                "may have mixed case, but should otherwise match a DNS-1035 label",
            );
        }
    }
    if text(names, &["kind"]) == text(names, &["listKind"]) && !text(names, &["kind"]).is_empty() {
        errors.invalid(
            &path.field("listKind"),
            text(names, &["listKind"]),
            "kind and listKind may not be the same",
        );
    }
    for list in ["shortNames", "categories"] {
        let list_path = path.field(list);
        for (i, name) in items(names, &[list]).iter().filter_map(Value::as_str).enumerate() {
            if !format::is_service_name(name) {
                errors.invalid(&list_path.index(i), name, "must be a DNS-1035 label");
            }
        }
    }
}

fn versions(definition: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.field("versions");
    let versions = items(definition, &["spec", "versions"]);
    let stored = versions.iter().filter(|v| flag(v, &["storage"])).count();
    if stored != 1 {
        errors.invalid(&list, versions.to_vec(), "must have exactly one version marked as storage version");
    }
    let mut names: Vec<&str> = Vec::new();
    for (i, version) in versions.iter().enumerate() {
        let path = list.index(i);
        let name = text(version, &["name"]);
        if !format::is_service_name(name) {
            errors.invalid(&path.field("name"), name, "must be a DNS-1035 label");
        }
        if names.contains(&name) {
            errors.invalid(&list, versions.to_vec(), "must contain unique version names");
        }
        names.push(name);
        schema(version, &path, errors);
        columns(version, &path, errors);
        if let Some(scale) = at(version, &["subresources", "scale"]) {
            let place = path.field("subresources");
            let place = place.field("scale");
            for (name, prefix) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
                let value = text(scale, &[name]);
                if value.is_empty() {
                    errors.required(&place.field(name), "");
                } else if !value.starts_with(prefix) {
                    errors.invalid(
                        &place.field(name),
                        value,
                        format!("should be a json path under {prefix}"),
                    );
                }
            }
        }
    }
    let path = Path::new("status");
    let place = path.field("storedVersions");
    for (i, stored) in
        items(definition, &["status", "storedVersions"]).iter().filter_map(Value::as_str).enumerate()
    {
        if !names.contains(&stored) {
            errors.invalid(&place.index(i), stored, "must appear in spec.versions");
        }
    }
}

fn schema(version: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.field("schema");
    let place = path.field("openAPIV3Schema");
    let Some(schema) = at(version, &["schema", "openAPIV3Schema"]) else {
        return errors.required(&place, "schemas are required");
    };
    structural::validate(schema, &place, errors);
}

fn columns(version: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.field("additionalPrinterColumns");
    for (i, column) in items(version, &["additionalPrinterColumns"]).iter().enumerate() {
        let path = list.index(i);
        check::required(column, "name", &path, errors);
        let kinds = ["boolean", "date", "integer", "number", "string"];
        check::required_one_of(column, "type", &kinds, &path, errors);
        let json_path = text(column, &["jsonPath"]);
        if json_path.is_empty() {
            errors.required(&path.field("jsonPath"), "");
        } else if !json_path.starts_with('.') {
            errors.invalid(&path.field("jsonPath"), json_path, "must start with '.'");
        }
    }
}
