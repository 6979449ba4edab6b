//! Volumes and their sources.

use std::collections::HashSet;

use serde_json::Value;

use super::env;
use crate::check;
use crate::error::Errors;
use crate::field::{at, int, items, text};
use crate::path::Path;

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
/// Fields that a source must have.
const REQUIRED: &[(&str, &[&str])] = &[
    ("hostPath", &["path"]),
    ("secret", &["secretName"]),
    ("configMap", &["name"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("nfs", &["server", "path"]),
    ("csi", &["driver"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("gitRepo", &["repository"]),
];

/// Validates the volumes and returns those that have a name.
pub(super) fn validate<'a>(spec: &'a Value, path: &Path<'_>, errors: &mut Errors) -> Vec<&'a Value> {
    let list = path.field("volumes");
    let mut names = HashSet::new();
    let mut named = Vec::new();
    for (i, volume) in items(spec, &["volumes"]).iter().enumerate() {
        let path = list.index(i);
        let name = text(volume, &["name"]);
        if name.is_empty() {
            errors.required(&path.field("name"), "");
        } else {
            check::dns_label(name, &path.field("name"), errors);
            if !names.insert(name) {
                errors.duplicate(&path.field("name"), name);
            }
            named.push(volume);
        }
        one_source(volume, &path, errors);
    }
    named
}

fn one_source(volume: &Value, path: &Path<'_>, errors: &mut Errors) {
    let sources: Vec<_> =
        crate::field::members(volume, &[]).filter(|(k, v)| *k != "name" && !v.is_null()).collect();
    if sources.is_empty() {
        errors.required(path, "must specify a volume type");
    }
    for (i, (kind, source)) in sources.iter().enumerate() {
        let path = path.field(kind);
        if i > 0 {
            errors.forbidden(&path, "may not specify more than 1 volume type");
        } else {
            validate_source(kind, source, &path, errors);
        }
    }
}

/// Validates one volume source; persistent volumes share it.
pub(crate) fn validate_source(kind: &str, source: &Value, path: &Path<'_>, errors: &mut Errors) {
    for name in REQUIRED.iter().find(|(k, _)| *k == kind).map_or(&[][..], |(_, names)| names) {
        check::required(source, name, path, errors);
    }
    match kind {
        "hostPath" => {
            check::no_backsteps(text(source, &["path"]), &path.field("path"), errors);
            check::one_of(source, "type", HOST_PATH_TYPES, path, errors);
        }
        "secret" | "configMap" | "downwardAPI" => files(source, path, errors),
        "emptyDir" => {
            if let Some(limit) = at(source, &["sizeLimit"]).filter(|l| check::quantity(l).signum() < 0) {
                let detail = format!("SizeLimit field must be a valid resource quantity, got {limit}");
                errors.forbidden(&path.field("sizeLimit"), &detail);
            }
        }
        "nfs" if !text(source, &["path"]).is_empty() && !text(source, &["path"]).starts_with('/') => {
            errors.invalid(&path.field("path"), text(source, &["path"]), "must be an absolute path");
        }
        "projected" => projected(source, path, errors),
        "ephemeral" if at(source, &["volumeClaimTemplate"]).is_none() => {
            errors.required(&path.field("volumeClaimTemplate"), "");
        }
        _ => {}
    }
}

fn files(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    mode(source, "defaultMode", path, errors);
    let list = path.field("items");
    for (i, item) in items(source, &["items"]).iter().enumerate() {
        let path = list.index(i);
        mode(item, "mode", &path, errors);
        if at(item, &["fieldRef"]).is_none() && at(item, &["resourceFieldRef"]).is_none() {
            check::required(item, "key", &path, errors);
        } else if let Some(field) = at(item, &["resourceFieldRef"]) {
            check::required(field, "containerName", &path.field("resourceFieldRef"), errors);
            env::resource_field_ref(field, &path.field("resourceFieldRef"), errors);
        }
        if check::required(item, "path", &path, errors) {
            check::descending_path(text(item, &["path"]), &path.field("path"), errors);
        }
    }
}

fn mode(source: &Value, name: &str, path: &Path<'_>, errors: &mut Errors) {
    if let Some(mode) = int(source, &[name]).filter(|m| !(0..=0o777).contains(m)) {
        errors.invalid(
            &path.field(name),
            mode,
            "must be a number between 0 and 0777 (octal), both inclusive",
        );
    }
}

fn projected(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    mode(source, "defaultMode", path, errors);
    let list = path.field("sources");
    for (i, one) in items(source, &["sources"]).iter().enumerate() {
        let path = list.index(i);
        let kinds: Vec<_> = crate::field::members(one, &[]).filter(|(_, v)| !v.is_null()).collect();
        if kinds.is_empty() {
            errors.required(&path, "must specify a volume type");
        }
        for (kind, one) in kinds {
            let path = path.field(kind);
            match kind {
                "secret" | "configMap" => {
                    check::required(one, "name", &path, errors);
                    files(one, &path, errors);
                }
                "downwardAPI" => files(one, &path, errors),
                "serviceAccountToken" => token(one, &path, errors),
                _ => {}
            }
        }
    }
}

fn token(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let seconds = int(source, &["expirationSeconds"]).unwrap_or(3600);
    let place = path.field("expirationSeconds");
    if seconds < 600 {
        errors.invalid(&place, seconds, "may not specify a duration less than 10 minutes");
    } else if seconds > 1 << 32 {
        errors.invalid(&place, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    if check::required(source, "path", path, errors) {
        check::descending_path(text(source, &["path"]), &path.field("path"), errors);
    }
}
