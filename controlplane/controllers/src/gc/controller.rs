//! The shell of the garbage collector.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::{ApiResource, DynamicObject, ObjectMeta};
use serde_json::json;
use skep_informer::{Outcome, work};

use super::graph::{FOREGROUND, Node, ORPHAN, Work};
use super::monitor::{Shared, monitor};
use super::plan::{Action, OwnerState, plan};
use crate::context::Context;
use crate::error::{ControllerError, unless_gone};

const WORKERS: usize = 8;
const NOT_SYNCED: Duration = Duration::from_millis(250);
/// How often a foreground deletion is looked at in case an event was missed.
const RECHECK: Duration = Duration::from_secs(30);

/// Deletes what has lost its owners.
pub(crate) struct GarbageCollector {
    context: Arc<Context>,
    shared: Arc<Shared>,
}

impl GarbageCollector {
    /// A collector that knows nothing yet.
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        Self { context: context.clone(), shared: Arc::default() }
    }

    /// Works until dropped.
    pub(crate) async fn run(self) {
        let watching = monitor(self.context.client.clone(), self.shared.clone());
        let working = work("garbage-collector", &self.shared.queue, WORKERS, |item| self.reconcile(item));
        tokio::join!(watching, working);
    }

    async fn reconcile(&self, item: Work) -> Result<Outcome, ControllerError> {
        if !self.shared.is_synced() {
            return Ok(Outcome::After(NOT_SYNCED));
        }
        match item {
            Work::Check(uid) => self.check(&uid).await,
            Work::Orphan(uid) => self.orphan(&uid).await,
        }
    }

    async fn check(&self, uid: &str) -> Result<Outcome, ControllerError> {
        let known = self.shared.graph.lock().get(uid).cloned();
        let Some(node) = known else { return Ok(Outcome::Done) };
        let api = self.api(&node.kind, &node.namespace);
        let live = api.get_metadata_opt(&node.name).await?.map(|object| object.metadata);
        let Some(meta) = live.filter(|meta| meta.uid.as_deref() == Some(uid)) else {
            let work = self.shared.graph.lock().remove(uid);
            self.shared.enqueue(work);
            return Ok(Outcome::Done);
        };
        let foreground = meta.finalizers.iter().flatten().any(|name| name == FOREGROUND);
        if meta.deletion_timestamp.is_some() {
            return if foreground {
                self.finish_foreground(uid, &node, &meta).await
            } else {
                Ok(Outcome::Done)
            };
        }
        let mut owners = Vec::new();
        for owner in meta.owner_references.iter().flatten() {
            owners.push((owner.uid.clone(), self.owner_state(owner, &node.namespace).await?));
        }
        let has_dependents = self.shared.graph.lock().dependents(uid).next().is_some();
        match plan(&meta, &owners, has_dependents) {
            Action::Keep => {}
            Action::Unlink(dead) => self.unlink(&api, &meta, &dead).await?,
            Action::Delete(policy) => {
                let same =
                    Preconditions { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() };
                let params = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
                unless_gone(api.delete(&node.name, &params.preconditions(same)).await)?;
                tracing::debug!(kind = node.kind.kind, name = node.name, "deleted: its owners are gone");
            }
        }
        Ok(Outcome::Done)
    }

    /// Ends a foreground deletion once no dependent blocks it; until then deletes those.
    async fn finish_foreground(
        &self,
        uid: &str,
        node: &Node,
        meta: &ObjectMeta,
    ) -> Result<Outcome, ControllerError> {
        let blocking = self.shared.graph.lock().blocking(uid);
        if blocking.is_empty() {
            self.remove_finalizer(node, meta, FOREGROUND).await?;
            return Ok(Outcome::Done);
        }
        for (dependent, _) in blocking.iter().filter(|(_, node)| !node.deleting) {
            self.shared.queue.add(Work::Check(dependent.clone()));
        }
        Ok(Outcome::After(RECHECK))
    }

    /// Cuts the dependents of an owner loose, then lets it go.
    async fn orphan(&self, uid: &str) -> Result<Outcome, ControllerError> {
        let known = self.shared.graph.lock().get(uid).cloned();
        let Some(node) = known else { return Ok(Outcome::Done) };
        let api = self.api(&node.kind, &node.namespace);
        let live = api.get_metadata_opt(&node.name).await?.map(|object| object.metadata);
        let Some(meta) = live.filter(|meta| meta.uid.as_deref() == Some(uid)) else {
            return Ok(Outcome::Done);
        };
        if !meta.finalizers.iter().flatten().any(|name| name == ORPHAN) {
            return Ok(Outcome::Done);
        }
        let dependents: Vec<Node> =
            self.shared.graph.lock().dependents(uid).map(|(_, node)| node.clone()).collect();
        for dependent in dependents {
            let api = self.api(&dependent.kind, &dependent.namespace);
            if let Some(live) = api.get_metadata_opt(&dependent.name).await? {
                self.unlink(&api, &live.metadata, &[uid.to_owned()]).await?;
            }
        }
        self.remove_finalizer(&node, &meta, ORPHAN).await?;
        Ok(Outcome::Done)
    }

    async fn owner_state(
        &self,
        owner: &OwnerReference,
        namespace: &str,
    ) -> Result<OwnerState, ControllerError> {
        let known = self.shared.graph.lock().get(&owner.uid).map(|node| node.foreground);
        if let Some(foreground) = known {
            return Ok(if foreground { OwnerState::Waiting } else { OwnerState::Solid });
        }
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let kind = self.shared.types.lock().get(&(group.to_owned(), owner.kind.clone())).cloned();
        // A type that nobody serves has no objects.
        let Some(kind) = kind else { return Ok(OwnerState::Absent) };
        let api = self.api(&kind.api, if kind.namespaced { namespace } else { "" });
        let live = api.get_metadata_opt(&owner.name).await?.map(|object| object.metadata);
        let Some(meta) = live.filter(|meta| meta.uid.as_ref() == Some(&owner.uid)) else {
            return Ok(OwnerState::Absent);
        };
        let waits = meta.finalizers.iter().flatten().any(|name| name == FOREGROUND);
        Ok(if meta.deletion_timestamp.is_some() && waits { OwnerState::Waiting } else { OwnerState::Solid })
    }

    /// Takes the references to `owners` out of an object.
    async fn unlink(
        &self,
        api: &Api<DynamicObject>,
        meta: &ObjectMeta,
        owners: &[String],
    ) -> Result<(), ControllerError> {
        let kept: Vec<&OwnerReference> =
            meta.owner_references.iter().flatten().filter(|owner| !owners.contains(&owner.uid)).collect();
        if kept.len() == meta.owner_references.as_ref().map_or(0, Vec::len) {
            return Ok(());
        }
        let patch = json!({"metadata": {
            "resourceVersion": meta.resource_version, "uid": meta.uid, "ownerReferences": kept}});
        let name = meta.name.clone().unwrap_or_default();
        unless_gone(api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        Ok(())
    }

    async fn remove_finalizer(
        &self,
        node: &Node,
        meta: &ObjectMeta,
        finalizer: &str,
    ) -> Result<(), ControllerError> {
        let kept: Vec<&String> = meta.finalizers.iter().flatten().filter(|name| *name != finalizer).collect();
        let patch = json!({"metadata": {
            "resourceVersion": meta.resource_version, "uid": meta.uid, "finalizers": kept}});
        let api = self.api(&node.kind, &node.namespace);
        unless_gone(api.patch_metadata(&node.name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        Ok(())
    }

    fn api(&self, kind: &ApiResource, namespace: &str) -> Api<DynamicObject> {
        let client = self.context.client.clone();
        if namespace.is_empty() {
            Api::all_with(client, kind)
        } else {
            Api::namespaced_with(client, namespace, kind)
        }
    }
}
