//! Pod subresources that change a part of the spec: `ephemeralcontainers` and `resize`.

use serde_json::Value;

use crate::error::Errors;
use crate::field::{copy, items, items_mut};
use crate::group::core::pod_spec;
use crate::path::Path;

/// Keeps everything but the part that the subresource may change.
pub(crate) fn prepare_subresource(name: &str, new: &mut Value, old: &Value) {
    let proposed = new.clone();
    *new = old.clone();
    match name {
        "ephemeralcontainers" => copy("ephemeralContainers", &proposed["spec"], &mut new["spec"]),
        "resize" => {
            copy("resources", &proposed["spec"], &mut new["spec"]);
            for list in ["containers", "initContainers"] {
                for (ours, theirs) in items_mut(new, &["spec", list]).zip(items(&proposed, &["spec", list])) {
                    copy("resources", theirs, ours);
                    copy("resizePolicy", theirs, ours);
                }
            }
        }
        _ => {}
    }
    for kept in ["managedFields", "resourceVersion"] {
        copy(kept, &proposed["metadata"], &mut new["metadata"]);
    }
}

/// What is wrong with a change through the subresource.
pub(crate) fn validate_subresource(name: &str, new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &new["spec"];
    match name {
        "ephemeralcontainers" => {
            let volumes: Vec<&Value> = items(spec, &["volumes"]).iter().collect();
            pod_spec::ephemeral(spec, &volumes, &path, errors);
            let now = items(spec, &["ephemeralContainers"]);
            let kept = items(old, &["spec", "ephemeralContainers"]).iter().all(|c| now.contains(c));
            if !kept {
                let detail = "existing ephemeral containers may not be changed or removed";
                errors.forbidden(&path.field("ephemeralContainers"), detail);
            }
        }
        "resize" => {
            pod_spec::validate(spec, &path, errors);
            if super::qos::class(new) != super::qos::class(old) {
                errors.invalid(&path, "", "Pod QOS Class may not change as a result of resizing");
            }
        }
        _ => {}
    }
}
