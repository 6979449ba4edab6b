//! ControllerRevisions: the history of a pod template, for the kinds whose pods carry no ReplicaSet.
//!
//! A revision's data is the patch that brings the template back, so `kubectl rollout undo` only has to send it. Revisions
//! are numbered upwards; one that becomes current again gets the highest number. Pure; [`apply`] does the writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::error::{ControllerError, unless_gone};
use crate::template_hash::template_hash;

/// Label of pods and revisions that names the revision.
pub(crate) const HASH_LABEL: &str = "controller-revision-hash";

/// Whose history it is, and what the template is now.
pub(crate) struct Subject<'a> {
    /// Name of the workload.
    pub(crate) name: &'a str,
    /// Namespace of the workload.
    pub(crate) namespace: &'a str,
    /// Reference to the workload.
    pub(crate) owner: OwnerReference,
    /// Labels of the template: revisions carry them, which is how kubectl finds them.
    pub(crate) labels: BTreeMap<String, String>,
    /// The template.
    pub(crate) template: &'a k8s_openapi::api::core::v1::PodTemplateSpec,
    /// How often names have collided.
    pub(crate) collisions: i32,
}

/// What history needs.
#[derive(Debug, PartialEq)]
pub(crate) struct History {
    /// The hash (and label value) of the current revision.
    pub(crate) current: String,
    /// Revisions to create or renumber.
    pub(crate) write: Option<Write>,
}

/// A revision to write.
#[derive(Debug, PartialEq)]
pub(crate) enum Write {
    /// Make it.
    Create(Box<ControllerRevision>),
    /// It is current again: give it the highest number.
    Renumber(Box<ControllerRevision>),
}

/// Finds or makes the revision of the subject's template.
pub(crate) fn plan(
    subject: &Subject<'_>,
    existing: &[Arc<ControllerRevision>],
) -> Result<History, ControllerError> {
    let data = data(subject)?;
    let highest = existing.iter().map(|revision| revision.revision).max().unwrap_or(0);
    let mut equal: Vec<&Arc<ControllerRevision>> =
        existing.iter().filter(|revision| revision.data.as_ref().is_some_and(|raw| raw.0 == data)).collect();
    equal.sort_by_key(|revision| revision.revision);
    if let Some(found) = equal.last() {
        let current = hash_of(found);
        if found.revision == highest {
            return Ok(History { current, write: None });
        }
        let mut renumbered = (***found).clone();
        renumbered.revision = highest + 1;
        return Ok(History { current, write: Some(Write::Renumber(Box::new(renumbered))) });
    }
    let hash = template_hash(&data, subject.collisions)?;
    let mut revision = ControllerRevision {
        data: Some(RawExtension(data)),
        revision: highest + 1,
        ..ControllerRevision::default()
    };
    revision.metadata.name = Some(format!("{}-{hash}", subject.name));
    revision.metadata.namespace = Some(subject.namespace.to_owned());
    let mut labels = subject.labels.clone();
    labels.insert(HASH_LABEL.into(), hash.clone());
    revision.metadata.labels = Some(labels);
    revision.metadata.owner_references = Some(vec![subject.owner.clone()]);
    Ok(History { current: hash, write: Some(Write::Create(Box::new(revision))) })
}

/// Old revisions beyond `limit` that no pod uses any more, oldest first.
pub(crate) fn expired(
    existing: &[Arc<ControllerRevision>],
    current: &str,
    used: &[&str],
    limit: usize,
) -> Vec<String> {
    let idle = |revision: &&Arc<ControllerRevision>| {
        let hash = hash_of(revision);
        hash != current && !used.contains(&hash.as_str())
    };
    let mut idle: Vec<&Arc<ControllerRevision>> = existing.iter().filter(idle).collect();
    idle.sort_by_key(|revision| revision.revision);
    let surplus = idle.len().saturating_sub(limit);
    idle.into_iter().take(surplus).map(|revision| revision.name_any()).collect()
}

fn data(subject: &Subject<'_>) -> Result<Value, serde_json::Error> {
    let mut template = serde_json::to_value(subject.template)?;
    if let Some(template) = template.as_object_mut() {
        template.insert("$patch".into(), "replace".into());
    }
    Ok(json!({"spec": {"template": template}}))
}

/// The label value of a revision.
pub(crate) fn hash_of(revision: &ControllerRevision) -> String {
    revision.labels().get(HASH_LABEL).cloned().unwrap_or_default()
}

/// Writes a revision. Returns whether its name was taken by another one.
pub(crate) async fn apply(
    api: &Api<ControllerRevision>,
    write: Option<Write>,
) -> Result<bool, ControllerError> {
    match write {
        None => {}
        Some(Write::Renumber(revision)) => {
            unless_gone(api.replace(&revision.name_any(), &PostParams::default(), &revision).await)?;
        }
        Some(Write::Create(revision)) => match api.create(&PostParams::default(), &revision).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let taken = api.get_opt(&revision.name_any()).await?;
                return Ok(
                    taken.is_some_and(|taken| taken.data.map(|raw| raw.0) != revision.data.map(|raw| raw.0))
                );
            }
            other => drop(other?),
        },
    }
    Ok(false)
}

/// Deletes revisions by name.
pub(crate) async fn prune(api: &Api<ControllerRevision>, names: Vec<String>) -> Result<(), ControllerError> {
    for name in names {
        unless_gone(api.delete(&name, &DeleteParams::background()).await)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};

    use super::*;

    fn template(host: &str) -> PodTemplateSpec {
        PodTemplateSpec {
            spec: Some(PodSpec { hostname: Some(host.into()), ..PodSpec::default() }),
            ..PodTemplateSpec::default()
        }
    }

    fn turn(template: &PodTemplateSpec, existing: &mut Vec<Arc<ControllerRevision>>) -> (String, i64) {
        let subject = Subject {
            name: "ds",
            namespace: "ns",
            owner: OwnerReference::default(),
            labels: BTreeMap::new(),
            template,
            collisions: 0,
        };
        let history = plan(&subject, existing).unwrap();
        match history.write {
            Some(Write::Create(revision)) => existing.push(Arc::new(*revision)),
            Some(Write::Renumber(revision)) => {
                existing.retain(|old| old.metadata.name != revision.metadata.name);
                existing.push(Arc::new(*revision));
            }
            None => {}
        }
        let number = existing.iter().find(|revision| hash_of(revision) == history.current).unwrap().revision;
        (history.current, number)
    }

    #[test]
    fn template_that_comes_back_gets_the_highest_number() {
        let mut existing = Vec::new();
        let (first, _) = turn(&template("a"), &mut existing);
        assert_eq!(turn(&template("b"), &mut existing).1, 2);
        assert_eq!(turn(&template("a"), &mut existing), (first.clone(), 3));
        assert_eq!(turn(&template("a"), &mut existing), (first, 3));
        assert_eq!(existing.len(), 2);
    }

    #[test]
    fn used_revisions_are_kept() {
        let mut existing = Vec::new();
        let hashes: Vec<String> =
            ["a", "b", "c", "d"].iter().map(|name| turn(&template(name), &mut existing).0).collect();
        let gone = expired(&existing, &hashes[3], &[&hashes[0]], 1);
        assert_eq!(gone, [format!("ds-{}", hashes[1])]);
    }
}
