//! DefaultStorageClass: a claim that names no class gets the default one; of several, the newest.

use serde_json::Value;

use crate::meta;
use crate::state::State;

const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

/// Fills in the class of a new claim.
pub fn mutate(state: &State, claim: &mut Value) {
    if !claim["spec"]["storageClassName"].is_null() {
        return;
    }
    let classes = state.store.values("storage.k8s.io", "storageclasses", None);
    let default = classes
        .iter()
        .filter(|c| c["metadata"]["annotations"][DEFAULT] == "true")
        .max_by_key(|c| (meta::text(c, "creationTimestamp").to_owned(), meta::text(c, "name").to_owned()));
    if let Some(class) = default {
        claim["spec"]["storageClassName"] = meta::text(class, "name").into();
    }
}
