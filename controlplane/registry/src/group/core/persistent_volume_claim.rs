//! PersistentVolumeClaims, also as templates in StatefulSets.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::persistent_volume::{access_modes, short_modes};
use crate::check;
use crate::error::Errors;
use crate::field::{at, fill, fill_empty, items, object, set, text};
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

pub(crate) static STRATEGY: Strategy = Strategy {
    status: true,
    default: claim_default,
    prepare_create: |claim| claim["status"] = json!({"phase": "Pending"}),
    validate: |claim, errors| validate_spec(&claim["spec"], &Path::new("spec"), errors),
    validate_change,
    warnings: |claim, out| {
        let amount = at(claim, &["spec", "resources", "requests", "storage"]);
        if let Some(amount) = amount.filter(|a| !check::quantity(a).is_whole()) {
            let shown = amount.as_str().unwrap_or_default();
            out.push(format!(
                "spec.resources.requests[storage]: fractional byte value {shown:?} is invalid, must be an integer"
            ));
        }
    },
    row: cells,
    ..Strategy::BASE
};

/// Fills in a claim.
pub(crate) fn claim_default(claim: &mut Value) {
    let spec = object(claim, "spec");
    fill_empty(spec, "volumeMode", "Filesystem");
    for (from, to) in [("dataSource", "dataSourceRef"), ("dataSourceRef", "dataSource")] {
        let source = at(spec, &[from]).cloned();
        if let Some(mut source) = source.filter(|s| text(s, &["namespace"]).is_empty()) {
            fill(&mut source, "apiGroup", Value::Null);
            spec[from] = source.clone();
            fill(spec, to, source);
        }
    }
    fill(object(claim, "status"), "phase", "Pending");
}

/// Validates a claim's spec.
pub(crate) fn validate_spec(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    access_modes(spec, path, errors);
    check::selector(spec.get("selector"), &path.field("selector"), errors);
    let resources = path.field("resources");
    let requests = resources.field("requests");
    match at(spec, &["resources", "requests", "storage"]) {
        None => errors.required(&resources.key("storage"), ""),
        Some(amount) if check::quantity(amount).signum() <= 0 => {
            errors.invalid(&requests.key("storage"), amount.clone(), "must be greater than zero");
        }
        Some(_) => {}
    }
    let class = text(spec, &["storageClassName"]);
    if !class.is_empty() {
        check::subdomain(class, &path.field("storageClassName"), errors);
    }
    check::one_of(spec, "volumeMode", &["Block", "Filesystem"], path, errors);
    if let (Some(one), Some(other)) = (at(spec, &["dataSource"]), at(spec, &["dataSourceRef"]))
        && one != other
    {
        errors.invalid(path, path.to_string(), "must match dataSourceRef");
    }
}

fn validate_change(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let mut allowed = new["spec"].clone();
    let bound = text(old, &["status", "phase"]) == "Bound";
    if text(old, &["spec", "volumeName"]).is_empty() {
        crate::field::copy("volumeName", &old["spec"], &mut allowed);
    }
    crate::field::copy("volumeAttributesClassName", &old["spec"], &mut allowed);
    if at(old, &["spec", "storageClassName"]).is_none() && !bound {
        crate::field::copy("storageClassName", &old["spec"], &mut allowed);
    }
    if bound && let Some(requests) = at(old, &["spec", "resources", "requests"]) {
        object(&mut allowed, "resources")["requests"] = requests.clone();
        let amount = |v: &Value| at(v, &["spec", "resources", "requests", "storage"]).map(check::quantity);
        if amount(new) < amount(old) {
            let resources = path.field("resources");
            errors.forbidden(&resources.field("requests"), "field can not be less than previous value");
        }
    }
    if allowed != old["spec"] {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.forbidden(&path, detail);
    }
    check::immutable(&new["spec"], &old["spec"], &["volumeMode"], &Path::ROOT, errors);
}

fn cells(claim: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &claim["spec"];
    let phase = if set(claim, &["metadata", "deletionTimestamp"]) {
        "Terminating"
    } else {
        text(claim, &["status", "phase"])
    };
    let volume = text(spec, &["volumeName"]);
    let (capacity, modes) = if volume.is_empty() {
        (String::new(), String::new())
    } else {
        let capacity = text(claim, &["status", "capacity", "storage"]).to_owned();
        (capacity, short_modes(items(claim, &["status", "accessModes"])))
    };
    let class = text(spec, &["volumeAttributesClassName"]);
    vec![
        row::name(claim),
        phase.into(),
        volume.into(),
        capacity.into(),
        modes.into(),
        text(spec, &["storageClassName"]).into(),
        if class.is_empty() { "<unset>" } else { class }.into(),
        row::age(claim, now),
        text(spec, &["volumeMode"]).into(),
    ]
}
