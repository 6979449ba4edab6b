//! One watch of one type, kept as a [`Store`] and told to handlers.
//!
//! Handlers run on the watch's task, so they only compute keys and enqueue them. They are registered before the
//! informer runs, hence see every object once as [`Change::Added`].

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{Stream, StreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::store::IndexFn;
use crate::{ObjectKey, Store};

/// What happened to an object, with the state before where there is one.
pub enum Change<'a, K> {
    /// Seen for the first time.
    Added(&'a Arc<K>),
    /// Seen before; the two may be equal after a re-list.
    Updated {
        /// Last known state.
        old: &'a Arc<K>,
        /// New state.
        new: &'a Arc<K>,
    },
    /// Gone; the last state known, which may miss the final changes.
    Deleted(&'a Arc<K>),
}

impl<'a, K> Change<'a, K> {
    /// The newest state of the object.
    pub fn latest(&self) -> &'a Arc<K> {
        match self {
            Self::Added(object) | Self::Deleted(object) | Self::Updated { new: object, .. } => object,
        }
    }

    /// Every state involved: the old one first.
    pub fn states(&self) -> impl Iterator<Item = &'a Arc<K>> + use<'a, K> {
        let (first, second) = match self {
            Self::Added(object) | Self::Deleted(object) => (*object, None),
            Self::Updated { old, new } => (*old, Some(*new)),
        };
        std::iter::once(first).chain(second)
    }
}

type Handler<K> = Box<dyn Fn(Change<'_, K>) + Send + Sync>;

/// A type's objects, kept current by [`Informer::run`].
pub struct Informer<K> {
    store: Arc<Store<K>>,
    handlers: RwLock<Vec<Handler<K>>>,
    synced: AtomicBool,
    notify: Notify,
}

impl<K> Informer<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// An informer whose store has the given indexes.
    pub fn new(indexes: &[(&'static str, IndexFn<K>)]) -> Arc<Self> {
        Arc::new(Self {
            store: Arc::new(Store::new(indexes)),
            handlers: RwLock::default(),
            synced: AtomicBool::new(false),
            notify: Notify::new(),
        })
    }

    /// The objects known so far.
    pub fn store(&self) -> &Arc<Store<K>> {
        &self.store
    }

    /// Adds a handler; call before [`run`](Self::run).
    pub fn on_change(&self, handler: impl Fn(Change<'_, K>) + Send + Sync + 'static) {
        self.handlers.write().push(Box::new(handler));
    }

    /// Resolves when the first list has been stored completely.
    pub async fn synced(&self) {
        loop {
            let notified = self.notify.notified();
            if self.is_synced() {
                return;
            }
            notified.await;
        }
    }

    /// Whether the first list has been stored completely.
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// Watches `api` until dropped; re-lists and backs off by itself.
    pub async fn run(self: Arc<Self>, api: Api<K>, config: watcher::Config) {
        self.drive(watcher::watcher(api, config)).await;
    }

    /// Like [`run`](Self::run), over a stream of watch events made by the caller (metadata-only watches).
    pub async fn drive(
        self: Arc<Self>,
        events: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send,
    ) {
        let mut events = std::pin::pin!(events.default_backoff());
        let mut listing: HashSet<ObjectKey> = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.accept(event, &mut listing),
                Err(error) => {
                    tracing::debug!(kind = std::any::type_name::<K>(), %error, "watch interrupted; resuming");
                }
            }
        }
    }

    fn accept(&self, event: watcher::Event<K>, listing: &mut HashSet<ObjectKey>) {
        match event {
            watcher::Event::Init => listing.clear(),
            watcher::Event::InitApply(object) => {
                listing.insert(ObjectKey::of(&object));
                self.upsert(object);
            }
            watcher::Event::InitDone => {
                self.prune(listing);
                listing.clear();
                self.synced.store(true, Ordering::Release);
                self.notify.notify_waiters();
            }
            watcher::Event::Apply(object) => self.upsert(object),
            watcher::Event::Delete(object) => self.delete(object),
        }
    }

    fn upsert(&self, mut object: K) {
        object.meta_mut().managed_fields = None;
        let new = Arc::new(object);
        match self.store.insert(new.clone()) {
            Some(old) => self.tell(|| Change::Updated { old: &old, new: &new }),
            None => self.tell(|| Change::Added(&new)),
        }
    }

    fn delete(&self, mut object: K) {
        object.meta_mut().managed_fields = None;
        let object = Arc::new(object);
        self.store.remove(&ObjectKey::of(&*object));
        self.tell(|| Change::Deleted(&object));
    }

    fn prune(&self, listed: &HashSet<ObjectKey>) {
        for key in self.store.keys() {
            if !listed.contains(&key)
                && let Some(old) = self.store.remove(&key)
            {
                self.tell(|| Change::Deleted(&old));
            }
        }
    }

    fn tell<'a>(&self, change: impl Fn() -> Change<'a, K>)
    where
        K: 'a,
    {
        for handler in self.handlers.read().iter() {
            handler(change());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::watcher::Event;
    use parking_lot::Mutex;

    use super::*;

    fn map(name: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.into());
        map.metadata.namespace = Some("ns".into());
        map
    }

    #[tokio::test]
    async fn relist_reports_objects_that_vanished_meanwhile() {
        let informer: Arc<Informer<ConfigMap>> = Informer::new(&[]);
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = log.clone();
        informer.on_change(move |change| {
            let word = match &change {
                Change::Added(_) => "+",
                Change::Updated { .. } => "~",
                Change::Deleted(_) => "-",
            };
            sink.lock().push(format!("{word}{}", change.latest().metadata.name.clone().unwrap_or_default()));
        });
        let events = [
            Event::Init,
            Event::InitApply(map("a")),
            Event::InitApply(map("b")),
            Event::InitDone,
            Event::Apply(map("c")),
            Event::Delete(map("c")),
            Event::Init,
            Event::InitApply(map("b")),
            Event::InitDone,
        ];
        assert!(!informer.is_synced());
        informer.clone().drive(stream::iter(events.map(Ok))).await;
        informer.synced().await;
        assert_eq!(*log.lock(), ["+a", "+b", "+c", "-c", "~b", "-a"]);
    }
}
