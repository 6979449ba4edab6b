//! What an update of a pod may change: images, the deadline (shorter), tolerations (more), gates (fewer).

use serde_json::Value;

use crate::error::Errors;
use crate::field::{copy, int, items, items_mut, members, text};
use crate::path::Path;

const ALLOWED: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Validates an update of the pod itself.
pub(super) fn validate(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    for list in ["containers", "initContainers"] {
        if items(new, &["spec", list]).len() != items(old, &["spec", list]).len() {
            errors.forbidden(&path.field(list), "pod updates may not add or remove containers");
            return;
        }
    }
    deadline(new, old, &path, errors);
    tolerations(new, old, &path, errors);
    let gated = gates(new, old, &path, errors);
    let mut allowed = new.get("spec").cloned().unwrap_or_default();
    let before = old.get("spec").unwrap_or(&Value::Null);
    for name in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        copy(name, before, &mut allowed);
    }
    if gated {
        node_selector(new, old, &path, errors);
        copy("nodeSelector", before, &mut allowed);
        copy("affinity", before, &mut allowed);
    }
    if int(before, &["terminationGracePeriodSeconds"]).is_some_and(|s| s < 0)
        && int(&allowed, &["terminationGracePeriodSeconds"]) == Some(1)
    {
        copy("terminationGracePeriodSeconds", before, &mut allowed);
    }
    for list in ["containers", "initContainers"] {
        for (ours, theirs) in items_mut(&mut allowed, &[list]).zip(items(before, &[list])) {
            copy("image", theirs, ours);
        }
    }
    if &allowed != before {
        errors.forbidden(&path, ALLOWED);
    }
}

fn deadline(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    let name = "activeDeadlineSeconds";
    match (int(new, &["spec", name]), int(old, &["spec", name])) {
        (Some(now), Some(before)) if now > before => {
            errors.invalid(&path.field(name), now, "must be less than or equal to previous value");
        }
        (None, Some(_)) => {
            errors.invalid(
                &path.field(name),
                Value::Null,
                "must not update from a positive integer to nil value",
            );
        }
        _ => {}
    }
}

fn tolerations(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    let key = |t: &Value| ["key", "operator", "value", "effect"].map(|n| text(t, &[n]).to_owned());
    let now: Vec<_> = items(new, &["spec", "tolerations"]).iter().map(key).collect();
    if items(old, &["spec", "tolerations"]).iter().map(key).any(|t| !now.contains(&t)) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.forbidden(&path.field("tolerations"), detail);
    }
}

/// Whether the pod waits for gates; none may be added.
fn gates(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) -> bool {
    let list = path.field("schedulingGates");
    let before = items(old, &["spec", "schedulingGates"]);
    for (i, gate) in items(new, &["spec", "schedulingGates"]).iter().enumerate() {
        if !before.contains(gate) {
            let detail = format!(
                "only deletion is allowed, but found new scheduling gate {:?}",
                text(gate, &["name"])
            );
            errors.forbidden(&list.index(i).field("name"), &detail);
        }
    }
    !before.is_empty()
}

fn node_selector(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    let kept =
        members(old, &["spec", "nodeSelector"]).all(|(k, v)| new["spec"]["nodeSelector"].get(k) == Some(v));
    if !kept {
        let shown = new["spec"].get("nodeSelector").cloned().unwrap_or_default();
        errors.invalid(
            &path.field("nodeSelector"),
            shown,
            "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
        );
    }
}
