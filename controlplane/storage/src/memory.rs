//! A store in memory, for tests of everything above storage. It keeps the whole contract but durability.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::feed::{self, Feed};
use crate::leadership::LocalRoles;
use crate::{
    Batch, Change, CommitError, Entry, History, Key, Leadership, Offset, Op, Revision, Snapshot, Storage,
    StorageError, Tail, TailError, Transaction,
};

/// A store that forgets everything when it is dropped.
#[derive(Debug)]
pub struct MemoryStorage {
    state: Mutex<State>,
    feed: Feed,
    roles: LocalRoles,
}

#[derive(Debug)]
struct State {
    revision: Revision,
    compacted: Revision,
    entries: BTreeMap<Key, Entry>,
    log: Vec<Record>,
}

#[derive(Debug)]
struct Record {
    batch: Batch,
    previous: Vec<Option<Entry>>,
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStorage {
    /// An empty store at revision 1.
    #[must_use]
    pub fn new() -> Self {
        Self::with_offset(Offset::default())
    }

    /// An empty store whose revisions start after `offset`.
    #[must_use]
    pub fn with_offset(offset: Offset) -> Self {
        let revision = offset.served(1);
        let state = State { revision, compacted: revision, entries: BTreeMap::new(), log: Vec::new() };
        Self { state: Mutex::new(state), feed: Feed::new(revision), roles: LocalRoles::default() }
    }
}

impl State {
    fn apply(&mut self, transaction: Transaction) -> Result<Batch, CommitError> {
        for op in &transaction.ops {
            let actual = self.entries.get(op.key()).map(|entry| entry.revision);
            if !op.expect().holds(actual) {
                return Err(CommitError::Conflict { key: op.key().clone(), actual });
            }
        }
        self.revision = self.revision.next();
        let mut batch = Batch { revision: self.revision, changes: Vec::new() };
        let mut previous = Vec::new();
        for op in transaction.ops {
            let (key, value, replaced) = match op {
                Op::Put { key, value, .. } => {
                    let entry = Entry { key: key.clone(), value: value.clone(), revision: self.revision };
                    let replaced = self.entries.insert(key.clone(), entry);
                    (key, Some(value), replaced)
                }
                Op::Delete { key, .. } => match self.entries.remove(&key) {
                    Some(entry) => (key, None, Some(entry)),
                    None => continue,
                },
            };
            batch.changes.push(Change { key, value });
            previous.push(replaced);
        }
        self.log.push(Record { batch: batch.clone(), previous });
        Ok(batch)
    }

    fn since(&self, after: Revision) -> Result<&[Record], TailError> {
        if after < self.compacted {
            return Err(TailError::Compacted { oldest: self.compacted });
        }
        let start = self.log.partition_point(|record| record.batch.revision <= after);
        Ok(&self.log[start..])
    }
}

#[async_trait]
impl Storage for MemoryStorage {
    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        transaction.check()?;
        let mut state = self.state.lock();
        let batch = state.apply(transaction)?;
        let revision = batch.revision;
        // Under the state's lock, so that batches are published in order.
        self.feed.publish(vec![batch]);
        Ok(revision)
    }

    async fn revision(&self) -> Result<Revision, StorageError> {
        Ok(self.feed.published())
    }

    async fn scan(&self) -> Result<Snapshot, StorageError> {
        let state = self.state.lock();
        Ok(Snapshot { revision: state.revision, entries: state.entries.values().cloned().collect() })
    }

    async fn tail(&self, after: Revision) -> Result<Tail, TailError> {
        let state = self.state.lock();
        let past = state.since(after)?.iter().map(|record| Arc::new(record.batch.clone())).collect();
        let (_, live) = self.feed.subscribe();
        drop(state);
        Ok(feed::tail(after, past, live))
    }

    async fn history(&self, after: Revision, through: Revision) -> Result<Vec<History>, TailError> {
        let state = self.state.lock();
        let records = state.since(after)?.iter().filter(|record| record.batch.revision <= through);
        let each = |record: &Record| {
            let revision = record.batch.revision;
            let changes = record.batch.changes.iter().cloned().zip(record.previous.iter().cloned());
            changes.map(move |(change, previous)| History { revision, change, previous }).collect::<Vec<_>>()
        };
        Ok(records.flat_map(each).collect())
    }

    async fn compact(&self, through: Revision) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        let through = through.min(state.revision);
        if through > state.compacted {
            state.compacted = through;
            state.log.retain(|record| record.batch.revision > through);
        }
        Ok(())
    }

    async fn campaign(&self, role: &str, _identity: &str) -> Result<Leadership, StorageError> {
        Ok(self.roles.campaign(role).await)
    }
}
