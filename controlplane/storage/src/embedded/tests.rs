//! Durability: power failures on a disk that loses what was not synced.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use redb::Builder;

use super::EmbeddedStorage;
use super::journal::Journal;
use super::lossy::LossyDisk;
use crate::{
    Cache, CacheConfig, Change, CommitError, Expect, Key, Offset, Op, ResourceId, Revision, Storage,
    StorageError, Transaction, WatchItem, no_attributes,
};

const CLIENTS: u64 = 4;

fn resource() -> ResourceId {
    ResourceId::new("", "configmaps").unwrap()
}

fn key(number: u32) -> Key {
    Key::new(resource(), Some("default"), &format!("key-{number}")).unwrap()
}

/// The files of a store. The power of both fails at once, and each loses what it loses.
struct Disks {
    database: LossyDisk,
    journal: LossyDisk,
}

impl Disks {
    fn new() -> Self {
        let database = LossyDisk::default();
        Self { journal: database.another(), database }
    }

    fn power_on(&self, random: &mut StdRng) {
        self.database.power_on(random);
        self.journal.power_on(random);
    }
}

/// Opens a store with a small journal, so that it is full every now and then.
fn open(disks: &Disks) -> Result<EmbeddedStorage, StorageError> {
    let database = Builder::new().set_cache_size(1 << 20).create_with_backend(disks.database.clone());
    let database = database.map_err(super::tables::disk("opening the store"))?;
    let journal = Journal::new(Box::new(disks.journal.clone()), 100 << 10)?;
    EmbeddedStorage::start(database, journal, Offset(0))
}

fn transaction(random: &mut StdRng) -> Transaction {
    let first = random.random_range(0..20);
    let ops = (first..first + random.random_range(1..4)).map(|number| {
        if random.random_bool(0.2) {
            return Op::Delete { key: key(number), expect: Expect::Any };
        }
        // Large values take several pages, small ones share one.
        let length = if random.random_bool(0.2) { random.random_range(2_000..20_000) } else { 40 };
        let value = Bytes::from(vec![random.random_range(b'a'..=b'z'); length]);
        Op::Put { key: key(number), value, expect: Expect::Any }
    });
    Transaction::new(ops.collect())
}

/// Commits until the power fails; returns what was acknowledged.
async fn write_until_failure(store: Arc<EmbeddedStorage>, seed: u64) -> Vec<(Revision, Transaction)> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut acknowledged = Vec::new();
    loop {
        let transaction = transaction(&mut random);
        match store.commit(transaction.clone()).await {
            Ok(revision) => acknowledged.push((revision, transaction)),
            Err(CommitError::Unavailable(_) | CommitError::OutcomeUnknown(_)) => return acknowledged,
            Err(error) => panic!("{error}"),
        }
    }
}

/// What the log says happened, by revision.
type Log = BTreeMap<Revision, Vec<Change>>;

/// Reads the whole log and checks that it has no gap, and that it leads to the state.
async fn checked_log(store: &EmbeddedStorage) -> Log {
    let last = store.revision().await.unwrap();
    let history = store.history(Revision(1), last).await.unwrap();
    let mut log: Log = (2..=last.0).map(|revision| (Revision(revision), Vec::new())).collect();
    let mut state = BTreeMap::new();
    for past in history {
        let before = past.previous.map(|entry| (entry.revision, entry.value));
        assert_eq!(state.get(&past.change.key).cloned(), before, "each change says what it replaced");
        match &past.change.value {
            Some(value) => state.insert(past.change.key.clone(), (past.revision, value.clone())),
            None => state.remove(&past.change.key),
        };
        log.get_mut(&past.revision).unwrap().push(past.change);
    }
    let entries = store.scan().await.unwrap().entries;
    let entries: BTreeMap<_, _> = entries.into_iter().map(|e| (e.key, (e.revision, e.value))).collect();
    assert_eq!(entries, state, "the log leads to the state");
    log
}

fn assert_acknowledged(log: &Log, acknowledged: &[(Revision, Transaction)], seed: u64) {
    for (revision, transaction) in acknowledged {
        let changes = log.get(revision).unwrap_or_else(|| panic!("seed {seed}: {revision} is lost"));
        let happened = |op: &Op| {
            let change = changes.iter().find(|change| change.key == *op.key());
            match change {
                Some(change) => change.value.as_ref() == op.value(),
                // Deleting what was absent leaves no change.
                None => op.value().is_none(),
            }
        };
        assert!(transaction.ops.iter().all(happened), "seed {seed}: {revision} differs");
    }
}

/// A watch from any revision brings exactly what the log has after it.
async fn assert_resumes(store: Arc<EmbeddedStorage>, log: &Log, from: Revision) {
    let cache = Cache::open(store, no_attributes(), CacheConfig::default()).await.unwrap();
    let mut watcher = cache.watch(&resource(), None, from).unwrap();
    for (revision, changes) in log.range(from.next()..) {
        for change in changes {
            let Some(WatchItem::Event(event)) = watcher.try_next() else { panic!("{revision} is missing") };
            assert_eq!((event.revision, event.object.key()), (*revision, &change.key));
        }
    }
    assert!(!matches!(watcher.try_next(), Some(WatchItem::Event(_))));
    cache.close().await;
}

async fn survives_power_failures(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let disk = Disks::new();
    // A file has its name only once it is a store: see `create`.
    drop(open(&disk));
    let mut acknowledged = Vec::new();
    for _ in 0..3 {
        disk.database.fail_after(random.random_range(1..400));
        if let Ok(store) = open(&disk) {
            let store = Arc::new(store);
            let clients =
                (0..CLIENTS).map(|_| tokio::spawn(write_until_failure(Arc::clone(&store), random.random())));
            for client in clients.collect::<Vec<_>>() {
                acknowledged.extend(client.await.unwrap());
            }
        }
        disk.power_on(&mut random);
        // Power may fail again while the store recovers.
        disk.database.fail_after(random.random_range(0..20));
        drop(open(&disk));
        disk.power_on(&mut random);
        let store = Arc::new(open(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error:?}")));
        let log = checked_log(&store).await;
        assert_acknowledged(&log, &acknowledged, seed);
        let from = Revision(random.random_range(1..=log.len() as u64 + 1));
        assert_resumes(Arc::clone(&store), &log, from).await;
    }
}

#[tokio::test]
async fn power_failures_lose_nothing_acknowledged_and_leave_no_gap() {
    for seed in 0..20 {
        survives_power_failures(seed).await;
    }
}

#[tokio::test]
async fn a_failed_disk_ends_leadership_and_tails_and_refuses_writes() {
    let disk = Disks::new();
    let store = open(&disk).unwrap();
    let leadership = store.campaign("scheduler", "a").await.unwrap();
    let mut tail = store.tail(Revision(1)).await.unwrap();
    disk.database.fail_after(0);
    let write = Transaction::put(key(1), "1", Expect::Any);
    let unknown = store.commit(write.clone()).await;
    assert!(matches!(unknown, Err(CommitError::OutcomeUnknown(_) | CommitError::Unavailable(_))));
    leadership.lost().await;
    store.failure().await;
    assert!(futures::StreamExt::next(&mut tail).await.is_none());
    assert!(matches!(store.commit(write).await, Err(CommitError::Unavailable(StorageError::Stopped { .. }))));
}

#[tokio::test]
async fn a_second_process_is_told_that_the_store_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let config = super::EmbeddedConfig::new(directory.path().join("store.redb"));
    let _first = EmbeddedStorage::open(&config).unwrap();
    let error = EmbeddedStorage::open(&config).unwrap_err();
    assert!(matches!(error, StorageError::Locked { .. }));
}

/// Opens a store in a directory.
fn open_in(directory: &Path) -> EmbeddedStorage {
    EmbeddedStorage::open(&super::EmbeddedConfig::new(directory.join("store.redb"))).unwrap()
}

async fn values(store: &EmbeddedStorage) -> usize {
    store.scan().await.unwrap().entries.len()
}

#[tokio::test]
async fn a_closed_store_needs_no_journal_and_one_that_was_copied_open_does() {
    let (closed, copied) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open_in(closed.path());
    for number in 0..10 {
        store.commit(Transaction::put(key(number), "1", Expect::Absent)).await.unwrap();
    }
    for name in ["store.redb", "store.journal"] {
        std::fs::copy(closed.path().join(name), copied.path().join(name)).unwrap();
    }
    drop(store);
    std::fs::remove_file(closed.path().join("store.journal")).unwrap();
    for directory in [&closed, &copied] {
        let store = open_in(directory.path());
        assert_eq!((values(&store).await, store.revision().await.unwrap()), (10, Revision(11)));
    }
}

#[tokio::test]
async fn a_new_store_does_not_read_the_journal_of_one_that_was_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_in(directory.path());
    store.commit(Transaction::put(key(1), "1", Expect::Absent)).await.unwrap();
    let journal = std::fs::read(directory.path().join("store.journal")).unwrap();
    drop(store);
    std::fs::remove_file(directory.path().join("store.redb")).unwrap();
    std::fs::write(directory.path().join("store.journal"), journal).unwrap();
    let store = open_in(directory.path());
    assert_eq!((values(&store).await, store.revision().await.unwrap()), (0, Revision(1)));
}

#[tokio::test]
async fn a_transaction_larger_than_the_journal_is_durable_all_the_same() {
    let disks = Disks::new();
    let store = open(&disks).unwrap();
    let value = Bytes::from(vec![b'x'; 1 << 20]);
    store.commit(Transaction::put(key(1), value, Expect::Absent)).await.unwrap();
    disks.database.fail_after(0);
    drop(store);
    disks.power_on(&mut StdRng::seed_from_u64(1));
    assert_eq!(values(&open(&disks).unwrap()).await, 1);
}

#[tokio::test]
async fn a_store_without_a_journal_gets_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    drop(open_in(directory.path()));
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut meta = transaction.open_table(super::tables::META).unwrap();
        meta.insert("format", 1).unwrap();
        meta.remove("journal").unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let store = open_in(directory.path());
    store.commit(Transaction::put(key(1), "1", Expect::Absent)).await.unwrap();
    assert_eq!(values(&store).await, 1);
}
