//! The contract of a store. Small on purpose: everything about reading older states lives in the cache.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::{CommitError, Key, Leadership, Revision, Transaction};

/// One stored value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: Key,
    /// Its bytes.
    pub value: Bytes,
    /// The revision that wrote it.
    pub revision: Revision,
}

/// Every value of a store at one revision, in no particular order.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The revision of the last transaction that it shows.
    pub revision: Revision,
    /// The values.
    pub entries: Vec<Entry>,
}

/// One key's part of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What changed.
    pub key: Key,
    /// The new value; `None` for a deletion.
    pub value: Option<Bytes>,
}

/// What one transaction changed. Changes of one revision are never split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The transaction's revision.
    pub revision: Revision,
    /// Its changes; empty when it removed only what was absent.
    pub changes: Vec<Change>,
}

/// A past change together with the state before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The revision of the change.
    pub revision: Revision,
    /// The change.
    pub change: Change,
    /// The entry it replaced; `None` when it created the key.
    pub previous: Option<Entry>,
}

/// Batches in revision order, each exactly once. The end of the stream, or an error, means: tail again from the
/// last revision seen.
pub type Tail = BoxStream<'static, Result<Arc<Batch>, StorageError>>;

/// What goes wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another process has the store.
    #[error(
        "the store {path} is in use by another process: stop that one, or give this one another --data-dir"
    )]
    Locked {
        /// The file.
        path: String,
    },
    /// The store's file could not be opened, read or written.
    #[error("the store failed at {action}: check free space and the health of the disk")]
    Disk {
        /// What was being done.
        action: &'static str,
        /// The database's own error.
        #[source]
        source: Box<redb::Error>,
    },
    /// etcd did not do what it was asked.
    #[error("etcd failed at {action}: check that its endpoints are up and reachable")]
    Etcd {
        /// What was being done.
        action: &'static str,
        /// The client's error.
        #[source]
        source: Box<etcd_client::Error>,
    },
    /// The store has stopped after an earlier failure; it must be opened again.
    #[error("the store has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
    /// The store holds something that this version cannot read.
    #[error("the store holds a record that cannot be read: {what}")]
    Corrupt {
        /// Which.
        what: String,
    },
}

/// Why a tail or a history cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The revisions asked for are no longer kept.
    #[error("revisions up to {oldest} have been compacted")]
    Compacted {
        /// The oldest revision that one may tail after.
        oldest: Revision,
    },
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A store: durable transactions in one order.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// Makes a transaction durable and returns its revision. Nothing is acknowledged that a crash could lose.
    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError>;

    /// The revision of the last acknowledged transaction, asked from the store itself, never from a replica that
    /// may lag.
    async fn revision(&self) -> Result<Revision, StorageError>;

    /// Everything, at one revision.
    async fn scan(&self) -> Result<Snapshot, StorageError>;

    /// All transactions after `after`, past ones first, then live.
    async fn tail(&self, after: Revision) -> Result<Tail, TailError>;

    /// The changes in `(after, through]` with the state before each, oldest first. `through` must be a revision
    /// of a finished transaction.
    async fn history(&self, after: Revision, through: Revision) -> Result<Vec<History>, TailError>;

    /// Forgets how states up to `through` came about; the states themselves stay.
    async fn compact(&self, through: Revision) -> Result<(), StorageError>;

    /// Waits until `identity` leads `role`. The store alone decides who leads.
    async fn campaign(&self, role: &str, identity: &str) -> Result<Leadership, StorageError>;
}
