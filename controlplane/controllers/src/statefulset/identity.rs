//! The identity of a StatefulSet's pod: its number, and what follows from it.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use kube::ResourceExt;

use crate::owner::controller_reference;
use crate::pod_control::pod_from_template;
use crate::revisions::HASH_LABEL;

const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The number in the name of a pod of `set`.
pub(crate) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let name = pod.name_any();
    let number = name.strip_prefix(&set.name_any())?.strip_prefix('-')?;
    number.parse().ok().filter(|number| *number >= 0)
}

/// The pod of `set` with this number, of `template`, which is the revision called `revision`.
pub(crate) fn make_pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, number: i32) -> Pod {
    let name = format!("{}-{number}", set.name_any());
    let mut pod = pod_from_template(template, &set.name_any(), controller_reference(set));
    pod.metadata.generate_name = Some(format!("{}-", set.name_any()));
    pod.metadata.name = Some(name.clone());
    pod.metadata.namespace = set.namespace();
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(NAME_LABEL.into(), name.clone());
    labels.insert(INDEX_LABEL.into(), number.to_string());
    labels.insert(HASH_LABEL.into(), revision.into());
    let claims = claims(set, number);
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain =
        set.spec.as_ref().and_then(|spec| spec.service_name.clone()).filter(|name| !name.is_empty());
    let volumes = spec.volumes.get_or_insert_default();
    for (volume, claim) in claims {
        volumes.retain(|own| own.name != volume);
        let source = PersistentVolumeClaimVolumeSource { claim_name: claim.name_any(), read_only: None };
        volumes.push(Volume { name: volume, persistent_volume_claim: Some(source), ..Volume::default() });
    }
    if volumes.is_empty() {
        spec.volumes = None;
    }
    pod
}

/// The claims of the pod with this number, by volume name.
pub(crate) fn claims(set: &StatefulSet, number: i32) -> Vec<(String, PersistentVolumeClaim)> {
    let spec = set.spec.as_ref();
    let templates = spec.and_then(|spec| spec.volume_claim_templates.as_ref()).into_iter().flatten();
    let labels = spec.and_then(|spec| spec.selector.match_labels.clone()).unwrap_or_default();
    templates
        .map(|template| {
            let volume = template.name_any();
            let mut claim = template.clone();
            claim.status = None;
            claim.metadata.name = Some(format!("{volume}-{}-{number}", set.name_any()));
            claim.metadata.namespace = set.namespace();
            claim.metadata.labels.get_or_insert_default().extend(labels.clone());
            (volume, claim)
        })
        .collect()
}
