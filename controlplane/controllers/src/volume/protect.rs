//! Finalizers that hold volumes and claims while they are in use.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;

use crate::pods;

const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";
const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";

/// The finalizers that `volume` should have; none if it has them.
pub(crate) fn volume_finalizers(volume: &PersistentVolume) -> Option<Vec<String>> {
    let bound = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    finalizers(volume, VOLUME_FINALIZER, bound)
}

/// The finalizers that `claim` should have, given the pods of its namespace; none if it has them.
pub(crate) fn claim_finalizers(claim: &PersistentVolumeClaim, pods: &[Arc<Pod>]) -> Option<Vec<String>> {
    let used = pods.iter().any(|pod| !pods::is_finished(pod) && uses(pod, &claim.name_any()));
    finalizers(claim, CLAIM_FINALIZER, used)
}

fn finalizers<K: ResourceExt>(object: &K, own: &str, used: bool) -> Option<Vec<String>> {
    let held = object.finalizers().iter().any(|name| name == own);
    let deleting = object.meta().deletion_timestamp.is_some();
    match (held, deleting) {
        (false, false) => {
            let mut all = object.finalizers().to_vec();
            all.push(own.to_owned());
            Some(all)
        }
        (true, true) if !used => {
            Some(object.finalizers().iter().filter(|name| *name != own).cloned().collect())
        }
        _ => None,
    }
}

/// The claims that a pod uses.
pub(crate) fn claims_of(pod: &Pod) -> impl Iterator<Item = &str> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

fn uses(pod: &Pod, claim: &str) -> bool {
    claims_of(pod).any(|name| name == claim)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claim_is_held_while_a_pod_uses_it() {
        let claim =
            |meta| -> PersistentVolumeClaim { serde_json::from_value(json!({"metadata": meta})).unwrap() };
        let fresh = claim(json!({"name": "c"}));
        assert_eq!(claim_finalizers(&fresh, &[]), Some(vec![CLAIM_FINALIZER.to_owned()]));
        let meta = json!({"name": "c", "finalizers": [CLAIM_FINALIZER], "deletionTimestamp": "2026-01-01T00:00:00Z"});
        let doomed = claim(meta);
        let volume = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        let pod = json!({"spec": {"containers": [], "volumes": volume}});
        let pod: Arc<Pod> = Arc::new(serde_json::from_value(pod).unwrap());
        assert_eq!(claim_finalizers(&doomed, &[pod]), None);
        assert_eq!(claim_finalizers(&doomed, &[]), Some(vec![]));
    }
}
