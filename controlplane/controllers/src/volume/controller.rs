//! The shell of volume binding and protection.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use skep_informer::{Change, ObjectKey, Outcome, Store, WorkQueue, work};

use super::bind::{ClaimStep, claim_step, volume_phase};
use super::protect::{claim_finalizers, claims_of, volume_finalizers};
use crate::context::Context;
use crate::error::{ControllerError, unless_gone};

/// What is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    Claim(ObjectKey),
    Volume(ObjectKey),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(key) => write!(f, "claim {key}"),
            Self::Volume(key) => write!(f, "volume {key}"),
        }
    }
}

/// Binds claims to volumes.
pub(crate) struct VolumeController {
    context: Arc<Context>,
    queue: Arc<WorkQueue<Subject>>,
}

impl VolumeController {
    /// Registers for claims, volumes, and the pods that use claims.
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        let queue: Arc<WorkQueue<Subject>> = Arc::default();
        let informers = &context.informers;
        let sink = queue.clone();
        informers.claims.on_change(move |change| {
            let claim = change.latest();
            sink.add(Subject::Claim(ObjectKey::of(&**claim)));
            if let Some(volume) = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()) {
                sink.add(Subject::Volume(ObjectKey::cluster(volume)));
            }
        });
        let (sink, claims) = (queue.clone(), informers.claims.store().clone());
        informers.volumes.on_change(move |change| {
            sink.add(Subject::Volume(ObjectKey::of(&**change.latest())));
            for claim in unbound(&claims, change.latest()) {
                sink.add(Subject::Claim(claim));
            }
        });
        let sink = queue.clone();
        informers.pods.on_change(move |change| {
            let pod: &Arc<Pod> = change.latest();
            if matches!(change, Change::Deleted(_)) || crate::pods::is_finished(pod) {
                for claim in claims_of(pod) {
                    let key = ObjectKey::namespaced(pod.namespace().unwrap_or_default(), claim);
                    sink.add(Subject::Claim(key));
                }
            }
        });
        Self { context: context.clone(), queue }
    }

    /// Works until dropped. One worker, so that two claims never reach for one volume.
    pub(crate) async fn run(self) {
        work("volumes", &self.queue, 1, |subject| self.reconcile(subject)).await;
    }

    async fn reconcile(&self, subject: Subject) -> Result<Outcome, ControllerError> {
        match subject {
            Subject::Claim(key) => self.claim(&key).await?,
            Subject::Volume(key) => self.volume(&key).await?,
        }
        Ok(Outcome::Done)
    }

    async fn claim(&self, key: &ObjectKey) -> Result<(), ControllerError> {
        let informers = &self.context.informers;
        let Some(claim) = informers.claims.store().get(key) else { return Ok(()) };
        let api = self.context.namespaced::<PersistentVolumeClaim>(&key.namespace);
        let pods = informers.pods.store().list_in(&key.namespace);
        if let Some(finalizers) = claim_finalizers(&claim, &pods) {
            let patch = json!({"metadata": {
                "resourceVersion": claim.metadata.resource_version, "finalizers": finalizers}});
            unless_gone(api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
            return Ok(());
        }
        let volumes = informers.volumes.store().list();
        match claim_step(&claim, &volumes, self.waits_for_consumer(&claim)) {
            None => {}
            Some(ClaimStep::Reserve(volume)) => {
                let api = self.context.cluster::<PersistentVolume>();
                unless_gone(api.replace(&volume.name_any(), &PostParams::default(), &volume).await)?;
            }
            Some(ClaimStep::Name(claim)) => {
                unless_gone(api.replace(&key.name, &PostParams::default(), &claim).await)?;
            }
            Some(ClaimStep::Report(claim)) => {
                unless_gone(api.replace_status(&key.name, &PostParams::default(), &claim).await)?;
            }
        }
        Ok(())
    }

    fn waits_for_consumer(&self, claim: &PersistentVolumeClaim) -> bool {
        let name =
            claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or_default();
        let class = self.context.informers.storage_classes.store().get_cluster(name);
        class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
    }

    async fn volume(&self, key: &ObjectKey) -> Result<(), ControllerError> {
        let informers = &self.context.informers;
        let Some(volume) = informers.volumes.store().get(key) else { return Ok(()) };
        let api = self.context.cluster::<PersistentVolume>();
        if let Some(finalizers) = volume_finalizers(&volume) {
            let patch = json!({"metadata": {
                "resourceVersion": volume.metadata.resource_version, "finalizers": finalizers}});
            unless_gone(api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
            return Ok(());
        }
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.clone()).unwrap_or_default();
        let claim = ObjectKey::namespaced(
            reference.namespace.unwrap_or_default(),
            reference.name.unwrap_or_default(),
        );
        let phase = volume_phase(&volume, informers.claims.store().get(&claim).as_deref());
        if volume.status.as_ref().and_then(|status| status.phase.as_deref()) != Some(phase) {
            let mut updated = (*volume).clone();
            updated.status.get_or_insert_default().phase = Some(phase.to_owned());
            unless_gone(api.replace_status(&key.name, &PostParams::default(), &updated).await)?;
        }
        Ok(())
    }
}

/// Claims that `volume` may interest: the one it refers to, else all that have none.
fn unbound(claims: &Store<PersistentVolumeClaim>, volume: &PersistentVolume) -> Vec<ObjectKey> {
    if let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.clone()) {
        let namespace = reference.namespace.unwrap_or_default();
        return vec![ObjectKey::namespaced(namespace, reference.name.unwrap_or_default())];
    }
    let free = |claim: &&Arc<PersistentVolumeClaim>| {
        claim.spec.as_ref().is_none_or(|spec| spec.volume_name.as_deref().is_none_or(str::is_empty))
    };
    claims.list().iter().filter(free).map(|claim| ObjectKey::of(&**claim)).collect()
}
