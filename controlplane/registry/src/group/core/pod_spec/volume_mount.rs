//! Where containers mount volumes, or see them as devices.

use std::collections::HashSet;

use serde_json::Value;

use super::container::Names;
use crate::check;
use crate::error::Errors;
use crate::field::{at, flag, items, text};
use crate::path::Path;

/// The list `volumeMounts`. Some errors name the list and not the item, as clients know it.
pub(super) fn mounts(container: &Value, names: &Names<'_>, path: &Path<'_>, errors: &mut Errors) {
    let list = path.field("volumeMounts");
    let mut paths = HashSet::new();
    for (i, mount) in items(container, &["volumeMounts"]).iter().enumerate() {
        let path = list.index(i);
        let name = text(mount, &["name"]);
        if name.is_empty() {
            errors.required(&path.field("name"), "");
        }
        if !names.volumes.iter().any(|v| text(v, &["name"]) == name) || name.is_empty() {
            errors.not_found(&path.field("name"), name);
        }
        let mount_path = text(mount, &["mountPath"]);
        if mount_path.is_empty() {
            errors.required(&path.field("mountPath"), "");
        }
        if !paths.insert(mount_path) {
            errors.invalid(&path.field("mountPath"), mount_path, "must be unique");
        }
        let (sub, expression) = (text(mount, &["subPath"]), text(mount, &["subPathExpr"]));
        if !sub.is_empty() {
            check::descending_path(sub, &list.field("subPath"), errors);
        }
        if !expression.is_empty() {
            if !sub.is_empty() {
                errors.invalid(
                    &path.field("subPathExpr"),
                    expression,
                    "subPathExpr and subPath are mutually exclusive",
                );
            }
            check::descending_path(expression, &list.field("subPathExpr"), errors);
        }
        propagation(container, mount, &list, errors);
    }
}

fn propagation(container: &Value, mount: &Value, list: &Path<'_>, errors: &mut Errors) {
    check::one_of(mount, "mountPropagation", &["Bidirectional", "HostToContainer", "None"], list, errors);
    let mode = text(mount, &["mountPropagation"]);
    if mode == "Bidirectional" && !flag(container, &["securityContext", "privileged"]) {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errors.forbidden(&list.field("mountPropagation"), detail);
    }
    let recursive = text(mount, &["recursiveReadOnly"]);
    check::one_of(mount, "recursiveReadOnly", &["Disabled", "Enabled", "IfPossible"], list, errors);
    if matches!(recursive, "Enabled" | "IfPossible") {
        let place = list.field("recursiveReadOnly");
        if !flag(mount, &["readOnly"]) {
            errors.forbidden(&place, "may only be specified when readOnly is true");
        } else if !matches!(mode, "" | "None") {
            errors.forbidden(&place, "may only be specified when mountPropagation is None or not specified");
        }
    }
}

/// The list `volumeDevices`.
pub(super) fn devices(container: &Value, names: &Names<'_>, path: &Path<'_>, errors: &mut Errors) {
    let list = path.field("volumeDevices");
    let mut paths = HashSet::new();
    for (i, device) in items(container, &["volumeDevices"]).iter().enumerate() {
        let path = list.index(i);
        let name = text(device, &["name"]);
        match names.volumes.iter().find(|v| text(v, &["name"]) == name) {
            _ if name.is_empty() => errors.required(&path.field("name"), ""),
            None => errors.not_found(&path.field("name"), name),
            Some(volume) => {
                let block = ["persistentVolumeClaim", "ephemeral"].iter().any(|s| at(volume, &[s]).is_some());
                if !block {
                    let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                    errors.invalid(&path.field("name"), name, detail);
                }
            }
        }
        let device_path = text(device, &["devicePath"]);
        if device_path.is_empty() {
            errors.required(&path.field("devicePath"), "");
        } else {
            check::no_backsteps(device_path, &path.field("devicePath"), errors);
            if !paths.insert(device_path) {
                errors.invalid(&path.field("devicePath"), device_path, "must be unique");
            }
        }
    }
}
