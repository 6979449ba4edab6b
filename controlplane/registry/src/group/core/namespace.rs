//! Namespaces.

use serde_json::{Value, json};

use crate::error::Errors;
use crate::field::{at, fill, items, object, set, text};
use crate::metadata::{NameRule, format};
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

pub(crate) static STRATEGY: Strategy = Strategy {
    name: NameRule::Label,
    status: true,
    selectable: &["status.phase"],
    default,
    prepare_create,
    prepare_update: |new, old| {
        let before = object(new, "spec");
        crate::field::copy("finalizers", &old["spec"], before);
    },
    validate,
    fields: |ns, sink| sink("status.phase", text(ns, &["status", "phase"]).to_owned()),
    row: |ns, now| vec![row::name(ns), text(ns, &["status", "phase"]).into(), row::age(ns, now)],
    ..Strategy::BASE
};

fn default(namespace: &mut Value) {
    let name = text(namespace, &["metadata", "name"]).to_owned();
    if !name.is_empty() {
        let labels = object(object(namespace, "metadata"), "labels");
        labels["kubernetes.io/metadata.name"] = name.into();
    }
    fill(object(namespace, "status"), "phase", "Active");
}

fn prepare_create(namespace: &mut Value) {
    namespace["status"] = json!({"phase": "Active"});
    let spec = object(namespace, "spec");
    let mut finalizers = items(spec, &["finalizers"]).to_vec();
    if !finalizers.iter().any(|f| f == "kubernetes") {
        finalizers.push("kubernetes".into());
    }
    spec["finalizers"] = finalizers.into();
}

fn validate(namespace: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let path = path.field("finalizers");
    for name in items(namespace, &["spec", "finalizers"]).iter().filter_map(Value::as_str) {
        let problems = format::qualified_name_problems(name);
        if !problems.is_empty() || !name.contains('/') && name != "kubernetes" {
            errors.invalid(
                &path,
                name,
                "name is neither a standard finalizer name nor is it fully qualified",
            );
        }
    }
    if set(namespace, &["metadata", "deletionTimestamp"]) && text(namespace, &["status", "phase"]) == "Active"
    {
        let path = Path::new("status");
        errors.invalid(
            &path.field("Phase"),
            "Active",
            "may only be 'Terminating' if `deletionTimestamp` is not empty",
        );
    }
    pod_security(namespace, errors);
}

fn pod_security(namespace: &Value, errors: &mut Errors) {
    let path = Path::new("metadata");
    let path = path.field("labels");
    for mode in ["enforce", "audit", "warn"] {
        let key = format!("pod-security.kubernetes.io/{mode}");
        if let Some(level) = at(namespace, &["metadata", "labels", &key]).and_then(Value::as_str)
            && !matches!(level, "privileged" | "baseline" | "restricted")
        {
            errors.invalid(&path.key(&key), level, "must be one of privileged, baseline, restricted");
        }
        let key = format!("{key}-version");
        if let Some(version) = at(namespace, &["metadata", "labels", &key]).and_then(Value::as_str)
            && version != "latest"
            && version.strip_prefix("v1.").is_none_or(|minor| minor.parse::<u16>().is_err())
        {
            errors.invalid(&path.key(&key), version, "must be \"latest\" or \"v1.x\"");
        }
    }
}
