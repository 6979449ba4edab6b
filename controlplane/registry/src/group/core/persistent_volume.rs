//! PersistentVolumes.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::pod_spec;
use crate::check;
use crate::error::Errors;
use crate::field::{at, fill, fill_empty, items, members, object, set, text};
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

pub(super) const ACCESS_MODES: &[&str] =
    &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const OTHERS: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

pub(crate) static STRATEGY: Strategy = Strategy {
    status: true,
    default: |volume| {
        let spec = object(volume, "spec");
        fill_empty(spec, "persistentVolumeReclaimPolicy", "Retain");
        fill_empty(spec, "volumeMode", "Filesystem");
        if spec.get("storageClassName").is_some_and(|c| c == "") {
            crate::field::remove(spec, "storageClassName");
        }
        if let Some(host_path) = spec.get_mut("hostPath") {
            fill(host_path, "type", "");
        }
        fill(object(volume, "status"), "phase", "Pending");
    },
    prepare_create: |volume| {
        let since = volume["metadata"].get("creationTimestamp").cloned().unwrap_or_default();
        volume["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": since});
    },
    validate,
    validate_change: |new, old, errors| {
        let path = Path::new("spec");
        let source = |v: &Value| sources(v).next().map(|(k, s)| (k.to_owned(), s.clone()));
        if source(new) != source(old) {
            errors.forbidden(
                &path.field("persistentvolumesource"),
                "spec.persistentvolumesource is immutable after creation",
            );
        }
        check::immutable(&new["spec"], &old["spec"], &["volumeMode"], &path, errors);
    },
    row: cells,
    ..Strategy::BASE
};

fn sources(volume: &Value) -> impl Iterator<Item = (&str, &Value)> {
    members(volume, &["spec"]).filter(|(k, v)| !OTHERS.contains(k) && !v.is_null())
}

fn validate(volume: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = volume.get("spec").unwrap_or(&Value::Null);
    access_modes(spec, &path, errors);
    capacity(spec, &path.field("capacity"), errors);
    let kinds: Vec<_> = sources(volume).collect();
    if kinds.is_empty() {
        errors.required(&path, "must specify a volume type");
    }
    for (i, (kind, source)) in kinds.iter().enumerate() {
        let path = path.field(kind);
        if i > 0 {
            errors.forbidden(&path, "may not specify more than 1 volume type");
            continue;
        }
        for name in required(kind) {
            check::required(source, name, &path, errors);
        }
        check::no_backsteps(text(source, &["path"]), &path.field("path"), errors);
    }
    check::one_of(spec, "persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"], &path, errors);
    if text(spec, &["hostPath", "path"]) == "/" && text(spec, &["persistentVolumeReclaimPolicy"]) == "Recycle"
    {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        errors.forbidden(&path.field("persistentVolumeReclaimPolicy"), detail);
    }
    let class = text(spec, &["storageClassName"]);
    if !class.is_empty() {
        check::subdomain(class, &path.field("storageClassName"), errors);
    }
    check::one_of(spec, "volumeMode", &["Block", "Filesystem"], &path, errors);
    let affinity = path.field("nodeAffinity");
    match at(spec, &["nodeAffinity", "required"]) {
        Some(required) => pod_spec::node_selector(required, &affinity.field("required"), errors),
        None if at(spec, &["local"]).is_some() => {
            errors.required(&affinity, "Local volume requires node affinity")
        }
        None => {}
    }
}

fn required(kind: &str) -> &'static [&'static str] {
    match kind {
        "hostPath" | "local" => &["path"],
        "nfs" => &["server", "path"],
        "csi" => &["driver", "volumeHandle"],
        "iscsi" => &["targetPortal", "iqn"],
        _ => &[],
    }
}

/// The access modes of a volume or claim: at least one, all known.
pub(super) fn access_modes(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let place = path.field("accessModes");
    let modes = items(spec, &["accessModes"]);
    if modes.is_empty() {
        errors.required(&place, "at least 1 access mode is required");
    }
    for mode in modes.iter().filter_map(Value::as_str).filter(|m| !ACCESS_MODES.contains(m)) {
        errors.not_supported(&place, mode, ACCESS_MODES);
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        errors.forbidden(&place, "may not use ReadWriteOncePod with other access modes");
    }
}

fn capacity(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let amounts: Vec<_> = members(spec, &["capacity"]).collect();
    if amounts.is_empty() {
        errors.required(path, "");
    }
    if amounts.len() != 1 || amounts[0].0 != "storage" {
        let shown: serde_json::Map<String, Value> =
            amounts.iter().map(|(k, v)| ((*k).to_owned(), (*v).clone())).collect();
        errors.not_supported(path, shown, &["storage"]);
    }
    for (name, amount) in amounts {
        if check::quantity(amount).signum() < 0 {
            errors.invalid(&path.key(name), amount.clone(), check::NOT_NEGATIVE);
            errors.invalid(&path.key(name), amount.clone(), "must be greater than zero");
        }
    }
}

/// `RWO,ROX` and so on.
pub(super) fn short_modes(modes: &[Value]) -> String {
    let mut out = Vec::new();
    for (name, short) in [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ] {
        if modes.iter().any(|m| m == name) {
            out.push(short);
        }
    }
    out.join(",")
}

fn cells(volume: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &volume["spec"];
    let claim = match at(spec, &["claimRef"]) {
        Some(claim) => format!("{}/{}", text(claim, &["namespace"]), text(claim, &["name"])),
        None => String::new(),
    };
    let deleted = set(volume, &["metadata", "deletionTimestamp"]);
    let phase = if deleted { "Terminating" } else { text(volume, &["status", "phase"]) };
    let class = text(spec, &["volumeAttributesClassName"]);
    vec![
        row::name(volume),
        text(spec, &["capacity", "storage"]).into(),
        short_modes(items(spec, &["accessModes"])).into(),
        text(spec, &["persistentVolumeReclaimPolicy"]).into(),
        phase.into(),
        claim.into(),
        text(spec, &["storageClassName"]).into(),
        if class.is_empty() { "<unset>" } else { class }.into(),
        text(volume, &["status", "reason"]).into(),
        row::age(volume, now),
        text(spec, &["volumeMode"]).into(),
    ]
}
