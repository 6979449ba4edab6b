//! The cache over a store whose tail breaks again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;

use super::{Cache, CacheConfig, WatchItem};
use crate::{
    CommitError, Expect, History, Key, Leadership, MemoryStorage, ResourceId, Revision, Snapshot, Storage,
    StorageError, Tail, TailError, Transaction, no_attributes,
};

/// A store whose tails end after a few batches, and cannot be opened while it is cut off.
#[derive(Default)]
struct Brittle {
    store: MemoryStorage,
    tails: AtomicUsize,
    cut_off: AtomicBool,
}

#[async_trait]
impl Storage for Brittle {
    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        self.store.commit(transaction).await
    }

    async fn revision(&self) -> Result<Revision, StorageError> {
        self.store.revision().await
    }

    async fn scan(&self) -> Result<Snapshot, StorageError> {
        self.store.scan().await
    }

    async fn tail(&self, after: Revision) -> Result<Tail, TailError> {
        if self.cut_off.load(Ordering::SeqCst) {
            return Err(StorageError::Stopped { reason: "cut off".to_owned() }.into());
        }
        let opened = self.tails.fetch_add(1, Ordering::SeqCst);
        Ok(self.store.tail(after).await?.take(1 + opened % 4).boxed())
    }

    async fn history(&self, after: Revision, through: Revision) -> Result<Vec<History>, TailError> {
        self.store.history(after, through).await
    }

    async fn compact(&self, through: Revision) -> Result<(), StorageError> {
        self.store.compact(through).await
    }

    async fn campaign(&self, role: &str, identity: &str) -> Result<Leadership, StorageError> {
        self.store.campaign(role, identity).await
    }
}

fn resource() -> ResourceId {
    ResourceId::new("", "pods").unwrap()
}

fn write(number: u64) -> Transaction {
    let key = Key::new(resource(), Some("default"), &format!("pod-{}", number % 3)).unwrap();
    Transaction::put(key, format!("{number}"), Expect::Any)
}

async fn open() -> (Arc<Brittle>, Arc<Cache>) {
    let store = Arc::new(Brittle::default());
    let storage = Arc::clone(&store) as Arc<dyn Storage>;
    (store, Cache::open(storage, no_attributes(), CacheConfig::default()).await.unwrap())
}

#[tokio::test]
async fn broken_tails_lose_and_repeat_nothing() {
    let (store, cache) = open().await;
    let mut watcher = cache.watch(&resource(), None, cache.revision()).unwrap();
    let mut last = cache.revision();
    for number in 0..12 {
        cache.commit(write(number)).await.unwrap();
    }
    while last < cache.revision() {
        if let WatchItem::Event(event) = watcher.next().await.unwrap() {
            assert_eq!(event.revision, last.next());
            last = event.revision;
        }
    }
    assert!(store.tails.load(Ordering::SeqCst) > 3, "the tail did break");
}

#[tokio::test]
async fn what_was_compacted_while_cut_off_ends_watches_but_not_the_cache() {
    let (store, cache) = open().await;
    let mut watcher = cache.watch(&resource(), None, cache.revision()).unwrap();
    let began = cache.revision();
    store.cut_off.store(true, Ordering::SeqCst);
    // The tail that is open still brings a few.
    for number in 0..10 {
        store.commit(write(number)).await.unwrap();
    }
    let last = store.revision().await.unwrap();
    store.compact(last).await.unwrap();
    store.cut_off.store(false, Ordering::SeqCst);
    tokio::time::timeout(Duration::from_secs(30), cache.wait_for(last)).await.unwrap();
    while let Some(item) = watcher.next().await {
        assert!(matches!(item, WatchItem::Event(_) | WatchItem::Bookmark(_)));
    }
    assert_eq!(cache.watch(&resource(), None, began).unwrap_err().oldest, last, "clients must list again");
    assert_eq!(cache.list(&resource(), None, None, None, None).unwrap().objects.len(), 3);
    let next = cache.commit(write(1)).await.unwrap();
    assert!(next.revision > last);
}
