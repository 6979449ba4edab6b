//! Metadata watches of every type that can be watched, started and stopped as types come and go.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::core::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use skep_informer::WorkQueue;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use super::graph::{Graph, Work};
use crate::discovery::{ResourceType, discover};

/// How often types are asked for without a reason.
const REFRESH: Duration = Duration::from_secs(120);
/// How long after a failure.
const RETRY: Duration = Duration::from_secs(2);
/// Time for the API to serve a type after its definition changed.
const SETTLE: Duration = Duration::from_millis(500);
/// The type whose objects are types.
const DEFINITION: &str = "CustomResourceDefinition";
/// Types that own nothing and are owned by nobody in practice, and change all the time.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];

/// What the watches have found.
#[derive(Default)]
pub(super) struct Shared {
    /// Who owns whom.
    pub(super) graph: Mutex<Graph>,
    /// What to look at.
    pub(super) queue: WorkQueue<Work>,
    /// Types by group and kind.
    pub(super) types: Mutex<HashMap<(String, String), ResourceType>>,
    /// Types listed completely.
    synced: Mutex<HashSet<String>>,
    /// A custom resource definition has changed.
    definitions: Notify,
}

impl Shared {
    /// Queues what the graph asks for.
    pub(super) fn enqueue(&self, work: Vec<Work>) {
        for item in work {
            self.queue.add(item);
        }
    }

    /// Whether every known type was listed: before that, a foreground deletion cannot know its dependents.
    pub(super) fn is_synced(&self) -> bool {
        let (types, synced) = (self.types.lock(), self.synced.lock());
        let watched = types.values().filter(|kind| is_watched(kind));
        !types.is_empty() && watched.into_iter().all(|kind| synced.contains(&key(&kind.api)))
    }
}

/// Keeps the watches until dropped.
pub(super) async fn monitor(client: Client, shared: Arc<Shared>) {
    let mut watches: JoinSet<()> = JoinSet::new();
    let mut running: HashMap<String, AbortHandle> = HashMap::new();
    loop {
        let types = match discover(&client).await {
            Ok(types) => types,
            Err(error) => {
                tracing::debug!(%error, "discovery failed; keeping the known types");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        let wanted: HashMap<String, ResourceType> =
            types.iter().filter(|kind| is_watched(kind)).map(|kind| (key(&kind.api), kind.clone())).collect();
        let named = |kind: ResourceType| ((kind.api.group.clone(), kind.api.kind.clone()), kind);
        *shared.types.lock() = types.into_iter().map(named).collect();
        running.retain(|key, watch| {
            let keep = wanted.contains_key(key);
            if !keep {
                watch.abort();
                shared.synced.lock().remove(key);
            }
            keep
        });
        for (key, kind) in wanted {
            let start = || watches.spawn(watch(client.clone(), shared.clone(), kind.api.clone()));
            running.entry(key).or_insert_with(start);
        }
        while watches.try_join_next().is_some() {}
        tokio::select! {
            () = tokio::time::sleep(REFRESH) => {}
            () = shared.definitions.notified() => tokio::time::sleep(SETTLE).await,
        }
    }
}

fn is_watched(kind: &ResourceType) -> bool {
    let ignored = IGNORED.contains(&(kind.api.group.as_str(), kind.api.plural.as_str()));
    kind.listable && kind.watchable && kind.deletable && !ignored
}

fn key(api: &ApiResource) -> String {
    format!("{}.{}/{}", api.plural, api.group, api.version)
}

async fn watch(client: Client, shared: Arc<Shared>, api: ApiResource) {
    let kind = Arc::new(api);
    let objects: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &*kind);
    let events = watcher::watcher(objects, watcher::Config::default()).default_backoff();
    let mut events = pin!(events);
    let mut listed: HashSet<String> = HashSet::new();
    while let Some(event) = events.next().await {
        if kind.kind == DEFINITION
            && matches!(event, Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_)))
        {
            shared.definitions.notify_one();
        }
        let work = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                Vec::new()
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.extend(object.metadata.uid.clone());
                shared.graph.lock().upsert(&kind, &object.metadata)
            }
            Ok(watcher::Event::InitDone) => {
                let work = prune(&shared, &kind, &listed);
                listed.clear();
                shared.synced.lock().insert(key(&kind));
                work
            }
            Ok(watcher::Event::Apply(object)) => shared.graph.lock().upsert(&kind, &object.metadata),
            Ok(watcher::Event::Delete(object)) => {
                shared.graph.lock().remove(object.metadata.uid.as_deref().unwrap_or_default())
            }
            Err(error) => {
                tracing::debug!(kind = kind.kind, %error, "metadata watch interrupted; resuming");
                Vec::new()
            }
        };
        shared.enqueue(work);
    }
}

fn prune(shared: &Shared, kind: &ApiResource, listed: &HashSet<String>) -> Vec<Work> {
    let mut graph = shared.graph.lock();
    let gone: Vec<String> = graph.of_kind(kind).into_iter().filter(|uid| !listed.contains(uid)).collect();
    gone.iter().flat_map(|uid| graph.remove(uid)).collect()
}
