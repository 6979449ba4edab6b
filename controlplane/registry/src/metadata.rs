//! Rules for the metadata that every object carries: names, labels, annotations, owners, finalizers.
//!
//! Who sets uid, times and versions is the API server; here is only what the result must look like.

use serde_json::Value;

use crate::error::Errors;
use crate::field::{at, copy, empty, items, members, set, text};
use crate::path::Path;
use crate::resource::Behaviour;

pub(crate) mod format;

use format::{is_dns_label, is_dns_subdomain, is_service_name, path_segment_problem};

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
    '.', and must start and end with an alphanumeric character";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
    start and end with an alphanumeric character";
const DNS_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
    alphabetic character, and end with an alphanumeric character";
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// What an object's name may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// A DNS subdomain.
    Subdomain,
    /// A DNS label.
    Label,
    /// A DNS label that begins with a letter.
    Label1035,
    /// Anything that may stand between slashes of a path.
    PathSegment,
    /// Not checked here.
    Any,
}

impl NameRule {
    /// What is wrong with the name, if anything.
    pub(crate) fn problem(self, name: &str) -> Option<String> {
        let wrong = match self {
            Self::Subdomain => (!is_dns_subdomain(name)).then_some(SUBDOMAIN),
            Self::Label => (!is_dns_label(name)).then_some(LABEL),
            Self::Label1035 => (!is_service_name(name)).then_some(DNS_1035),
            Self::PathSegment => path_segment_problem(name),
            Self::Any => None,
        };
        wrong.map(str::to_owned)
    }
}

/// Checks a whole metadata object.
pub(crate) fn validate(object: &Value, namespaced: bool, rule: NameRule, errors: &mut Errors) {
    let path = Path::new("metadata");
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    let name = text(metadata, &["name"]);
    let generate = text(metadata, &["generateName"]);
    if !generate.is_empty() {
        let base = generate.strip_suffix('-').unwrap_or(generate);
        if let Some(problem) = rule.problem(base).filter(|_| rule != NameRule::PathSegment) {
            errors.invalid(&path.field("generateName"), generate, problem);
        }
    }
    if name.is_empty() {
        errors.required(&path.field("name"), "name or generateName is required");
    } else if let Some(problem) = rule.problem(name) {
        errors.invalid(&path.field("name"), name, problem);
    }
    let namespace = text(metadata, &["namespace"]);
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.required(&path.field("namespace"), ""),
        (true, false) if !is_dns_label(namespace) => {
            errors.invalid(&path.field("namespace"), namespace, LABEL)
        }
        (false, false) => errors.forbidden(&path.field("namespace"), "not allowed on this type"),
        _ => {}
    }
    if let Some(generation) = metadata.get("generation").and_then(Value::as_i64).filter(|g| *g < 0) {
        errors.invalid(&path.field("generation"), generation, "must be greater than or equal to 0");
    }
    template(metadata, &path, errors);
    owners(metadata, &path, errors);
    finalizers(metadata, &path, errors);
}

/// Checks what a pod template's metadata shares with an object's.
pub(crate) fn template(metadata: &Value, path: &Path<'_>, errors: &mut Errors) {
    labels(metadata.get("labels"), &path.field("labels"), errors);
    annotations(metadata, path, errors);
}

/// Checks label keys and values.
pub(crate) fn labels(labels: Option<&Value>, path: &Path<'_>, errors: &mut Errors) {
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        for problem in format::qualified_name_problems(key) {
            errors.invalid(path, key.as_str(), problem);
        }
        let value = value.as_str().unwrap_or_default();
        if let Some(problem) = format::label_value_problem(value) {
            errors.invalid(path, value, problem);
        }
    }
}

fn annotations(metadata: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.field("annotations");
    let mut size = 0;
    for (key, value) in members(metadata, &["annotations"]) {
        for problem in format::qualified_name_problems(&key.to_lowercase()) {
            errors.invalid(&path, key, problem);
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_LIMIT {
        errors.too_long(&path, ANNOTATIONS_LIMIT);
    }
}

fn owners(metadata: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.field("ownerReferences");
    let mut controllers = 0;
    for (i, owner) in items(metadata, &["ownerReferences"]).iter().enumerate() {
        let path = path.index(i);
        let api_version = text(owner, &["apiVersion"]);
        if api_version.is_empty() {
            errors.invalid(&path.field("apiVersion"), api_version, "version must not be empty");
        } else if api_version.matches('/').count() > 1 {
            errors.invalid(&path.field("apiVersion"), api_version, "must be of the form group/version");
        }
        for name in ["kind", "name", "uid"] {
            if text(owner, &[name]).is_empty() {
                errors.invalid(&path.field(name), "", "must not be empty");
            }
        }
        if text(owner, &["kind"]) == "Event" && matches!(api_version, "v1" | "events.k8s.io/v1") {
            errors.invalid(&path, "", "Event is disallowed from being an owner");
        }
        controllers += usize::from(crate::field::flag(owner, &["controller"]));
    }
    if controllers > 1 {
        errors.invalid(&path, Value::Null, "Only one reference can have Controller set to true");
    }
}

fn finalizers(metadata: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.field("finalizers");
    let names = items(metadata, &["finalizers"]);
    for (i, name) in names.iter().filter_map(Value::as_str).enumerate() {
        let known = matches!(name, "orphan" | "foregroundDeletion" | "kubernetes");
        let problems = format::qualified_name_problems(name);
        for problem in &problems {
            errors.invalid(&path, name, *problem);
        }
        if problems.is_empty() && !name.contains('/') && !known {
            let place = path.index(i);
            errors.invalid(
                &place,
                name,
                "name is neither a standard finalizer name nor is it fully qualified",
            );
        }
    }
    let has = |wanted: &str| names.iter().any(|n| n == wanted);
    if has("orphan") && has("foregroundDeletion") {
        errors.invalid(
            &path,
            Value::Array(names.to_vec()),
            "finalizers orphan and foregroundDeletion exclude each other",
        );
    }
}

/// Checks what an update may not change. Callers fill absent fields from the old object before.
pub(crate) fn validate_change(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("metadata");
    for name in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        let (now, before) = (at(new, &["metadata", name]), at(old, &["metadata", name]));
        if now != before {
            let shown = now.cloned().unwrap_or_default();
            if name == "uid" {
                errors.invalid(&path.field(name), shown.clone(), "field is immutable");
            }
            errors.invalid(&path.field(name), shown, "field is immutable");
        }
    }
    if set(old, &["metadata", "deletionTimestamp"]) {
        let before = items(old, &["metadata", "finalizers"]);
        for added in items(new, &["metadata", "finalizers"]).iter().filter(|f| !before.contains(f)) {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{added}}}"
            );
            errors.forbidden(&path.field("finalizers"), &detail);
        }
    }
}

/// Restores the metadata that a status update does not touch.
pub(crate) fn keep_for_status(new: &mut Value, old: &Value, behaviour: &Behaviour) {
    let custom = matches!(behaviour, Behaviour::Custom(_));
    let before = old.get("metadata").unwrap_or(&Value::Null);
    if custom {
        let managed = at(new, &["metadata", "managedFields"]).cloned();
        let version = at(new, &["metadata", "resourceVersion"]).cloned();
        new["metadata"] = before.clone();
        for (name, value) in [("managedFields", managed), ("resourceVersion", version)] {
            if let Some(value) = value {
                new["metadata"][name] = value;
            }
        }
        return;
    }
    for name in ["deletionTimestamp", "ownerReferences"] {
        if !before.get(name).is_none_or(empty) || new["metadata"].get(name).is_some() {
            copy(name, before, &mut new["metadata"]);
        }
    }
}
