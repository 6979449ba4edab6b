//! The watch cache: the only multi-version structure of the control plane.
//!
//! One task follows the store's tail and applies it to [`state::State`], which is pure. Reads and lists come from
//! there; changes fan out to bounded watcher queues. A cache that loses its tail resumes exactly after the last
//! revision it applied; when that has been compacted it starts over and ends every watch, so that clients list
//! again rather than miss a change.

mod driver;
mod event;
mod list;
mod load;
mod state;
mod watchers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::{
    AttributesFn, Batch, CommitError, Key, Object, Op, ResourceId, Revision, Snapshot, Storage, StorageError,
    TailError, Transaction,
};
pub use event::{Event, WatchItem};
pub use list::Page;
use state::State;
pub use watchers::Watcher;
use watchers::Watchers;

/// How long an acknowledged commit may take to show up here before the answer is "outcome unknown".
const APPLY_DEADLINE: Duration = Duration::from_secs(10);

/// How much the cache remembers and how far watchers may lag.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Most events remembered for one resource.
    pub max_events: usize,
    /// Events of one resource that are remembered whatever their age.
    pub min_events: usize,
    /// Age after which events are forgotten.
    pub max_age: Duration,
    /// Revisions of history loaded from the store when the cache opens, so that watches resume after a restart.
    pub reload: u64,
    /// Events a watcher may lag behind before its watch is ended.
    pub watcher_queue: usize,
    /// How often idle watchers are told the current revision.
    pub bookmark_every: Duration,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            max_events: 65_536,
            min_events: 64,
            max_age: Duration::from_secs(300),
            reload: 8_192,
            watcher_queue: 1_024,
            bookmark_every: Duration::from_secs(30),
        }
    }
}

/// The revision asked for is outside what the cache remembers: the client must list again (HTTP 410).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {requested} is not available: the cache holds {oldest} to {newest}")]
pub struct Expired {
    /// What was asked for.
    pub requested: Revision,
    /// The oldest revision one may read or watch from.
    pub oldest: Revision,
    /// The newest.
    pub newest: Revision,
}

/// What a commit through the cache did.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The transaction's revision.
    pub revision: Revision,
    /// For each operation the object it made: the new state of a put, the last state of a deletion (with the
    /// deletion's revision), `None` for the deletion of what was absent.
    pub objects: Vec<Option<Arc<Object>>>,
}

/// The watch cache over a store.
pub struct Cache {
    inner: Arc<Inner>,
    driver: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    storage: Arc<dyn Storage>,
    config: CacheConfig,
    state: RwLock<State>,
    /// Locked by the driver around apply and fan-out, and by a new watch around replay and registration.
    watchers: Mutex<Watchers>,
    revision: AtomicU64,
    waiters: Mutex<BTreeMap<Revision, Vec<oneshot::Sender<()>>>>,
}

impl Cache {
    /// Loads everything, then follows the store until the cache is dropped. Must run inside a tokio runtime.
    pub async fn open(
        storage: Arc<dyn Storage>,
        attributes_of: AttributesFn,
        config: CacheConfig,
    ) -> Result<Arc<Self>, StorageError> {
        let state = load::load(&*storage, attributes_of, &config).await?;
        let revision = state.revision();
        let inner = Arc::new(Inner {
            storage,
            config,
            state: RwLock::new(state),
            watchers: Mutex::default(),
            revision: AtomicU64::new(revision.0),
            waiters: Mutex::default(),
        });
        let driver = tokio::spawn(driver::drive(Arc::downgrade(&inner), revision));
        Ok(Arc::new(Self { inner, driver: Mutex::new(Some(driver)) }))
    }

    /// Stops following the store and lets go of it, so that it can be opened again. Watches get nothing more.
    pub async fn close(&self) {
        let driver = self.driver.lock().take();
        if let Some(driver) = driver {
            driver.abort();
            // Cancelled is how it ends.
            let _ = driver.await;
        }
    }

    /// The store below.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.inner.storage
    }

    /// The revision of the last transaction applied here.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.inner.revision()
    }

    /// Waits until the cache has applied `revision`. Callers set the deadline.
    pub async fn wait_for(&self, revision: Revision) {
        self.inner.wait_for(revision).await;
    }

    /// Waits until the cache is as new as the store at the time of the call, for reads that must be consistent.
    pub async fn fresh(&self) -> Result<Revision, StorageError> {
        let revision = self.inner.storage.revision().await?;
        self.wait_for(revision).await;
        Ok(revision)
    }

    /// The current state of one object.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.inner.state.read().get(key)
    }

    /// How many objects a resource has now.
    #[must_use]
    pub fn count(&self, resource: &ResourceId) -> usize {
        self.inner.state.read().count(resource)
    }

    /// Objects in order of namespace and name, beginning behind `after`, at most `limit` of them; `at` an older
    /// revision (a continue token's) or as they are now.
    pub fn list(
        &self,
        resource: &ResourceId,
        namespace: Option<&str>,
        at: Option<Revision>,
        after: Option<&Key>,
        limit: Option<usize>,
    ) -> Result<Page, Expired> {
        self.inner.state.read().list(resource, namespace, at, after, limit)
    }

    /// All changes after `from`, past ones first, then live. The stream ends when the watcher lags too far or the
    /// cache starts over; watch again from the last revision seen.
    pub fn watch(
        &self,
        resource: &ResourceId,
        namespace: Option<&str>,
        from: Revision,
    ) -> Result<Watcher, Expired> {
        let mut watchers = self.inner.watchers.lock();
        let replay = self.inner.state.read().replay(resource, namespace, from)?;
        Ok(watchers.add(resource, namespace, replay, self.inner.config.watcher_queue))
    }

    /// Commits, then waits until the cache shows it, so that the caller reads its own writes.
    pub async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        let ops = transaction.ops.clone();
        let revision = self.inner.storage.commit(transaction).await?;
        if tokio::time::timeout(APPLY_DEADLINE, self.wait_for(revision)).await.is_err() {
            let reason = format!("revision {revision} is durable but the cache does not follow the store");
            return Err(CommitError::OutcomeUnknown(StorageError::Stopped { reason }));
        }
        let state = self.inner.state.read();
        let objects = ops.iter().map(|op| state.outcome(op, revision)).collect();
        Ok(Committed { revision, objects })
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.lock().take() {
            driver.abort();
        }
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cache @ {}", self.revision())
    }
}

impl Inner {
    fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Acquire))
    }

    async fn wait_for(&self, revision: Revision) {
        let applied = {
            let mut waiters = self.waiters.lock();
            if self.revision() >= revision {
                return;
            }
            let (sender, receiver) = oneshot::channel();
            waiters.entry(revision).or_default().push(sender);
            receiver
        };
        // The sender is only ever dropped unsent together with the cache.
        if applied.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Applies finished transactions, fans them out, and wakes those who wait for them.
    fn apply(&self, batches: &[Arc<Batch>]) {
        let mut watchers = self.watchers.lock();
        let (events, revision) = {
            let mut state = self.state.write();
            let now = Instant::now();
            let events: Vec<_> = batches.iter().flat_map(|batch| state.apply(batch, now)).collect();
            (events, state.revision())
        };
        for event in events {
            watchers.dispatch(&event);
        }
        drop(watchers);
        self.advance(revision);
    }

    /// Starts over from a snapshot; every watch ends.
    fn reset(&self, snapshot: Snapshot) {
        let mut watchers = self.watchers.lock();
        watchers.end_all();
        let revision = snapshot.revision;
        self.state.write().reset(snapshot);
        drop(watchers);
        self.advance(revision);
    }

    /// Tells every watcher where the cache is, and forgets what is too old.
    fn bookmark(&self) {
        let mut watchers = self.watchers.lock();
        self.state.write().expire(Instant::now());
        watchers.bookmark(self.revision());
    }

    fn advance(&self, revision: Revision) {
        self.revision.store(revision.0, Ordering::Release);
        let mut waiters = self.waiters.lock();
        let later = waiters.split_off(&revision.next());
        let reached = std::mem::replace(&mut *waiters, later);
        drop(waiters);
        for waiter in reached.into_values().flatten() {
            // Whoever gave up waiting is not an error.
            let _ = waiter.send(());
        }
    }
}

#[cfg(test)]
mod broken_tail_tests;
#[cfg(test)]
mod tests;
