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
    unconditional_update: false,
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
    conversion(&spec["conversion"], &path.field("conversion"), errors);
    if flag(spec, &["preserveUnknownFields"]) {
        errors.invalid(
            &path.field("preserveUnknownFields"),
            true,
            "must be false: use x-kubernetes-preserve-unknown-fields in schemas",
        );
    }
    approval(definition, group, errors);
}

fn conversion(conversion: &Value, path: &Path<'_>, errors: &mut Errors) {
    check::one_of(conversion, "strategy", &["None", "Webhook"], path, errors);
    if text(conversion, &["strategy"]) == "Webhook" {
        if at(conversion, &["webhook", "clientConfig"]).is_none() {
            errors.required(&path.field("webhookClientConfig"), "required when strategy is set to Webhook");
        }
        if items(conversion, &["webhook", "conversionReviewVersions"]).is_empty() {
            errors.required(&path.field("conversionReviewVersions"), "");
        }
    }
}

/// Groups of the Kubernetes project itself need a pointer to their approval.
fn approval(definition: &Value, group: &str, errors: &mut Errors) {
    const KEY: &str = "api-approved.kubernetes.io";
    let protected =
        ["k8s.io", "kubernetes.io"].iter().any(|d| group == *d || group.ends_with(&format!(".{d}")));
    if protected && text(definition, &["metadata", "annotations", KEY]).is_empty() {
        let metadata = Path::new("metadata");
        let annotations = metadata.field("annotations");
        errors.required(&annotations.key(KEY), "protected groups must have approval annotation");
    }
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

/// Errors about a definition's only version name no version.
fn place<'a>(spec: &'a Path<'a>, version: &'a Path<'a>, count: usize) -> &'a Path<'a> {
    if count == 1 { spec } else { version }
}

fn versions(definition: &Value, spec: &Path<'_>, errors: &mut Errors) {
    let list = spec.field("versions");
    let versions = items(definition, &["spec", "versions"]);
    let stored = versions.iter().filter(|v| flag(v, &["storage"])).count();
    let status = Path::new("status");
    let stored_place = status.field("storedVersions");
    if stored != 1 {
        errors.invalid(&list, versions.to_vec(), "must have exactly one version marked as storage version");
        errors.invalid(&stored_place, stored, "must have exactly one storage version");
    }
    let mut names: Vec<&str> = Vec::new();
    for (i, version) in versions.iter().enumerate() {
        let path = list.index(i);
        let name = text(version, &["name"]);
        if !format::is_service_name(name) {
            errors.invalid(&path.field("name"), name, "must be a DNS-1035 label");
            if i == 0 {
                errors.invalid(&spec.field("version"), name, "must be a DNS-1035 label");
            }
        }
        if names.contains(&name) {
            errors.invalid(&list, versions.to_vec(), "must contain unique version names");
        }
        names.push(name);
        let shared = place(spec, &path, versions.len());
        schema(version, shared, versions.len() == 1, errors);
        columns(version, shared, errors);
        scale(version, shared, errors);
        selectable(version, shared, errors);
    }
    for (i, stored) in
        items(definition, &["status", "storedVersions"]).iter().filter_map(Value::as_str).enumerate()
    {
        if !names.contains(&stored) {
            errors.invalid(&stored_place.index(i), stored, "must appear in spec.versions");
        }
    }
}

fn schema(version: &Value, path: &Path<'_>, alone: bool, errors: &mut Errors) {
    let path = path.field(if alone { "validation" } else { "schema" });
    let place = path.field("openAPIV3Schema");
    let Some(schema) = at(version, &["schema", "openAPIV3Schema"]) else {
        return errors.required(&place, "schemas are required");
    };
    structural::validate(schema, &place, errors);
}

fn scale(version: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(scale) = at(version, &["subresources", "scale"]) else { return };
    let place = path.field("subresources");
    let place = place.field("scale");
    for (name, prefix) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        let value = text(scale, &[name]);
        if value.is_empty() {
            errors.required(&place.field(name), "");
        } else if !value.starts_with(prefix) {
            errors.invalid(&place.field(name), value, format!("should be a json path under {prefix}"));
        }
    }
}

fn selectable(version: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.field("selectableFields");
    for (i, field) in items(version, &["selectableFields"]).iter().enumerate() {
        let path = list.index(i);
        let place = path.field("jsonPath");
        let json_path = text(field, &["jsonPath"]);
        let steps = json_path.trim_start_matches('.').split('.');
        let root = at(version, &["schema", "openAPIV3Schema"]);
        let found = steps.fold(root, |schema, step| at(schema?, &["properties", step]));
        let scalar = found.is_some_and(|s| matches!(text(s, &["type"]), "boolean" | "integer" | "string"));
        if json_path.is_empty() {
            errors.required(&place, "");
        } else if !scalar || !json_path.starts_with('.') {
            errors.invalid(&place, json_path, "must name a field of type boolean, integer or string");
        }
    }
}

fn columns(version: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.field("additionalPrinterColumns");
    for (i, column) in items(version, &["additionalPrinterColumns"]).iter().enumerate() {
        let path = list.index(i);
        check::required(column, "name", &path, errors);
        let kind = text(column, &["type"]);
        if kind.is_empty() {
            errors.required(&path.field("type"), "must be one of boolean, date, integer, number, string");
        } else if !matches!(kind, "boolean" | "date" | "integer" | "number" | "string") {
            errors.invalid(
                &path.field("type"),
                kind,
                "must be one of boolean, date, integer, number, string",
            );
        }
        let json_path = text(column, &["jsonPath"]);
        let place = path.field("JSONPath");
        if json_path.is_empty() {
            errors.required(&place, "");
        } else if !json_path.starts_with('.') {
            errors.invalid(&place, json_path, "must start with '.'");
        }
    }
}
