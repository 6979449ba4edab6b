//! From a Deployment's template to a ReplicaSet, and back: which set runs the current template.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::ResourceExt;

use crate::owner::controller_reference;
use crate::template_hash::template_hash;

/// Label by which a ReplicaSet's pods differ from those of its siblings.
pub(crate) const HASH_LABEL: &str = "pod-template-hash";

/// Whether two templates make equal pods, the hash label aside.
pub(crate) fn equal(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    plain(a) == plain(b)
}

fn plain(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let meta = template.metadata.get_or_insert_default();
    meta.creation_timestamp = None;
    if let Some(labels) = meta.labels.as_mut() {
        labels.remove(HASH_LABEL);
    }
    meta.labels = meta.labels.take().filter(|labels| !labels.is_empty());
    template
}

/// The oldest of `sets` that runs the deployment's template.
pub(crate) fn find_new<'a>(
    deployment: &Deployment,
    sets: impl IntoIterator<Item = &'a ReplicaSet>,
) -> Option<&'a ReplicaSet> {
    let wanted = &deployment.spec.as_ref()?.template;
    let runs = |set: &&ReplicaSet| {
        let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        template.is_some_and(|template| equal(template, wanted))
    };
    let mut candidates: Vec<&ReplicaSet> = sets.into_iter().filter(runs).collect();
    candidates.sort_by_key(|set| set.metadata.creation_timestamp.as_ref().map(|time| time.0));
    candidates.first().copied()
}

/// A ReplicaSet for the deployment's template, with no replicas and no revision yet.
pub(crate) fn make(deployment: &Deployment, spec: &DeploymentSpec) -> Result<ReplicaSet, serde_json::Error> {
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    let hash = template_hash(&spec.template, collisions)?;
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.clone());
    let mut set = ReplicaSet {
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        ..ReplicaSet::default()
    };
    set.metadata.name = Some(format!("{}-{hash}", deployment.name_any()));
    set.metadata.namespace = deployment.namespace();
    set.metadata.labels = Some(labels);
    set.metadata.owner_references = Some(vec![controller_reference(deployment)]);
    Ok(set)
}

/// Replicas a set is asked for.
pub(crate) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Available replicas a set reports.
pub(crate) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}
