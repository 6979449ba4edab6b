//! The shell of the namespace controller: deletes content type by type, reports, finalizes.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::{Resource, ResourceExt};
use skep_informer::{ObjectKey, Outcome, WorkQueue, work};

use super::plan::{FINALIZER, Leftover, Pass, conditions, is_due, retry_delay};
use crate::context::Context;
use crate::discovery::{ResourceType, discover};
use crate::error::{ControllerError, unless_gone};

/// Types looked after at once.
const PARALLEL: usize = 8;

/// Empties namespaces that are being deleted.
pub(crate) struct NamespaceController {
    context: Arc<Context>,
    queue: Arc<WorkQueue<ObjectKey>>,
}

impl NamespaceController {
    /// Registers for namespaces.
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let sink = queue.clone();
        context.informers.namespaces.on_change(move |change| {
            if is_due(change.latest()) {
                sink.add(ObjectKey::of(&**change.latest()));
            }
        });
        Self { context: context.clone(), queue }
    }

    /// Works until dropped.
    pub(crate) async fn run(self) {
        work("namespaces", &self.queue, 4, |key| self.reconcile(key)).await;
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ControllerError> {
        let api = self.context.cluster::<Namespace>();
        // Read afresh: a store that lags could show a namespace that is not being deleted any more, or a predecessor.
        let Some(namespace) = api.get_opt(&key.name).await?.filter(is_due) else { return Ok(Outcome::Done) };
        let pass = self.pass(&key.name).await;
        let mut current = namespace;
        if let Some(updated) = conditions(&current, &pass, Timestamp::now()) {
            let written = api.replace_status(&key.name, &PostParams::default(), &updated).await;
            match unless_gone(written)? {
                Some(written) => current = written,
                None => return Ok(Outcome::Done),
            }
        }
        if !pass.is_clean() {
            return Ok(Outcome::After(retry_delay(&current, Timestamp::now())));
        }
        if let Some(finalizers) = current.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|name| name != FINALIZER);
        }
        unless_gone(api.replace_subresource("finalize", &key.name, &PostParams::default(), &current).await)?;
        tracing::info!(namespace = key.name, "namespace emptied");
        Ok(Outcome::Done)
    }

    /// Deletes everything once and counts what is left.
    async fn pass(&self, namespace: &str) -> Pass {
        let types = match discover(&self.context.client).await {
            Ok(types) => types,
            Err(error) => return Pass { discovery_error: Some(error.to_string()), ..Pass::default() },
        };
        let concerned = types.into_iter().filter(|kind| kind.namespaced && kind.listable && kind.deletable);
        let leftovers: Vec<Leftover> = stream::iter(concerned)
            .map(|kind| self.empty(namespace, kind))
            .buffer_unordered(PARALLEL)
            .filter(|leftover| std::future::ready(leftover.count > 0 || leftover.error.is_some()))
            .collect()
            .await;
        let mut pass = Pass { discovery_error: None, leftovers };
        pass.leftovers.sort_by(|a, b| a.resource.cmp(&b.resource));
        pass
    }

    async fn empty(&self, namespace: &str, kind: ResourceType) -> Leftover {
        let api: Api<DynamicObject> = Api::namespaced_with(self.context.client.clone(), namespace, &kind.api);
        let resource = format!("{}.{}", kind.api.plural, kind.api.group);
        match empty(&api, &kind).await {
            Ok((count, finalizers)) => Leftover { resource, count, finalizers, error: None },
            Err(error) => Leftover { resource, error: Some(error.to_string()), ..Leftover::default() },
        }
    }
}

/// Deletes all objects of a type; returns how many are left and their finalizers.
async fn empty(
    api: &Api<DynamicObject>,
    kind: &ResourceType,
) -> Result<(usize, BTreeMap<String, usize>), ControllerError> {
    let all = ListParams::default();
    let items = api.list_metadata(&all).await?.items;
    if items.iter().all(|item| item.meta().deletion_timestamp.is_some()) {
        return Ok(count(&items));
    }
    if kind.collectable {
        api.delete_collection(&DeleteParams::background(), &all).await?;
    } else {
        for item in items.iter().filter(|item| item.meta().deletion_timestamp.is_none()) {
            unless_gone(api.delete(&item.name_any(), &DeleteParams::background()).await)?;
        }
    }
    Ok(count(&api.list_metadata(&all).await?.items))
}

fn count<K: ResourceExt>(items: &[K]) -> (usize, BTreeMap<String, usize>) {
    let mut finalizers = BTreeMap::new();
    for name in items.iter().flat_map(|item| item.finalizers()) {
        *finalizers.entry(name.clone()).or_default() += 1;
    }
    (items.len(), finalizers)
}
