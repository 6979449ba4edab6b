//! Whose pods are whose: a controller owns what refers to it, adopts matching orphans, lets go what stopped matching.
//!
//! Pure for any dependent type; [`apply`] sends the owner reference patches.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use skep_api::LabelSelector;

use crate::error::{ControllerError, unless_gone};
use crate::owner::{controller_of, is_controlled_by};

/// The outcome of claiming: what is owned, and what has to change hands first.
pub(crate) struct Claims<K> {
    /// Owned already and matching.
    pub(crate) owned: Vec<Arc<K>>,
    /// Matching orphans.
    pub(crate) adopt: Vec<Arc<K>>,
    /// Owned but no longer matching.
    pub(crate) release: Vec<Arc<K>>,
}

/// Sorts `candidates` (the controller's own and the namespace's orphans) for the controller with `uid`.
///
/// A controller that is being deleted neither adopts nor releases.
pub(crate) fn claim<K: Resource>(
    uid: &str,
    deleting: bool,
    selector: &LabelSelector,
    candidates: impl IntoIterator<Item = Arc<K>>,
) -> Claims<K> {
    let mut claims = Claims { owned: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    for candidate in candidates {
        let matches = selector.matches(candidate.labels());
        let terminating = candidate.meta().deletion_timestamp.is_some();
        if is_controlled_by(candidate.meta(), uid) {
            if matches {
                claims.owned.push(candidate);
            } else if !deleting {
                claims.release.push(candidate);
            }
        } else if controller_of(candidate.meta()).is_none()
            && matches
            && !deleting
            && !terminating
            && !selector.is_empty()
        {
            claims.adopt.push(candidate);
        }
    }
    claims
}

/// Adopts and releases, and returns all that is owned afterwards.
///
/// Before adopting, the owner is read afresh by the caller if its deletion could be unknown: the patch carries the
/// dependent's uid, and the garbage collector removes dependents of owners that are gone.
pub(crate) async fn apply<K>(
    api: &Api<K>,
    owner: &OwnerReference,
    claims: Claims<K>,
) -> Result<Vec<Arc<K>>, ControllerError>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut owned = claims.owned;
    for orphan in claims.adopt {
        let patch = json!({"metadata": {"ownerReferences": [owner], "uid": orphan.uid()}});
        let name = orphan.name_any();
        let adopted = api.patch(&name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        if let Some(adopted) = unless_gone(adopted)? {
            owned.push(Arc::new(adopted));
        }
    }
    for stranger in claims.release {
        let removal = json!([{"$patch": "delete", "uid": owner.uid}]);
        let patch = json!({"metadata": {"ownerReferences": removal, "uid": stranger.uid()}});
        let name = stranger.name_any();
        unless_gone(api.patch(&name, &PatchParams::default(), &Patch::Strategic(patch)).await)?;
    }
    Ok(owned)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn pod(name: &str, app: &str, owner: Option<&str>) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.into());
        pod.metadata.labels = Some([("app".to_owned(), app.to_owned())].into());
        pod.metadata.owner_references = owner.map(|uid| {
            vec![OwnerReference { uid: uid.into(), controller: Some(true), ..OwnerReference::default() }]
        });
        Arc::new(pod)
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<String> {
        pods.iter().map(|pod| pod.name_any()).collect()
    }

    #[test]
    fn owned_orphaned_and_strayed_pods_are_told_apart() {
        let pods = [
            pod("mine", "web", Some("u1")),
            pod("orphan", "web", None),
            pod("strayed", "db", Some("u1")),
            pod("foreign", "web", Some("u2")),
            pod("unrelated", "db", None),
        ];
        let selector: LabelSelector = "app=web".parse().unwrap();
        let claims = claim("u1", false, &selector, pods.clone());
        assert_eq!(names(&claims.owned), ["mine"]);
        assert_eq!(names(&claims.adopt), ["orphan"]);
        assert_eq!(names(&claims.release), ["strayed"]);
        let claims = claim("u1", true, &selector, pods);
        assert_eq!(names(&claims.owned), ["mine"]);
        assert!(claims.adopt.is_empty() && claims.release.is_empty());
    }
}
