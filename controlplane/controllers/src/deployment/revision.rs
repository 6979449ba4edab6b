//! Revision numbers and the annotations that carry them.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::{Resource, ResourceExt};

/// The revision of a set; on a Deployment, the one it runs.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Revisions that a set had before it was rolled back to.
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Replicas of the whole Deployment when a set was last resized.
pub(crate) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The same with the surge.
pub(crate) const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of the Deployment that are not copied to its sets.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAXIMUM,
    "deprecated.deployment.rollback.to",
];
const HISTORY_LIMIT: usize = 2000;

/// The revision of an object; 0 when it has none.
pub(crate) fn revision<K: Resource>(object: &K) -> i64 {
    number(object, REVISION).unwrap_or(0)
}

/// A number in an annotation.
pub(crate) fn number<K: Resource>(object: &K, annotation: &str) -> Option<i64> {
    object.annotations().get(annotation)?.parse().ok()
}

/// The revision that the newest template gets: one above every older one.
pub(crate) fn next<'a>(old: impl IntoIterator<Item = &'a ReplicaSet>) -> i64 {
    old.into_iter().map(revision).max().unwrap_or(0) + 1
}

/// Gives `set`, which runs the newest template, its revision and the Deployment's annotations.
pub(crate) fn annotate_new(
    deployment: &Deployment,
    set: &mut ReplicaSet,
    revision_number: i64,
    exists: bool,
) {
    let before = revision(set);
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.annotations() {
        if !OWN.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    if before < revision_number {
        annotations.insert(REVISION.into(), revision_number.to_string());
        if exists && before > 0 {
            let history = remember(annotations.get(HISTORY), before);
            annotations.insert(HISTORY.into(), history);
        }
    }
}

fn remember(history: Option<&String>, revision: i64) -> String {
    let mut text = match history {
        Some(history) if !history.is_empty() => format!("{history},{revision}"),
        _ => revision.to_string(),
    };
    while text.len() > HISTORY_LIMIT {
        let Some((_, rest)) = text.split_once(',') else { break };
        text = rest.to_owned();
    }
    text
}

/// Notes on `set` the Deployment's size at the time of resizing.
pub(crate) fn annotate_size(set: &mut ReplicaSet, desired: i32, maximum: i32) {
    let size = BTreeMap::from([
        (DESIRED.to_owned(), desired.to_string()),
        (MAXIMUM.to_owned(), maximum.to_string()),
    ]);
    set.metadata.annotations.get_or_insert_default().extend(size);
}
