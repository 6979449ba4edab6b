//! Storage of the control plane: what a transaction is, who makes it durable, and the one place that remembers
//! older revisions.
//!
//! Map of the crate:
//!
//! * [`Key`], [`Revision`], [`Transaction`]: the nouns. Keys are typed and validated, never paths from a request.
//! * [`Storage`]: the small contract of a store: commit with preconditions, scan, tail from a revision, compact,
//!   leadership. [`MemoryStorage`], [`EmbeddedStorage`] and [`EtcdStorage`] keep it; one conformance suite checks them all.
//! * [`Cache`]: the watch cache, the only multi-version structure. Reads, lists at a revision and watches of every
//!   store come from it.
//! * [`migrate`]: moves everything to another store.
//! * [`Object`]: one stored object at one revision, encoded once and shared by all its readers.

mod cache;
mod embedded;
mod etcd;
mod feed;
mod key;
mod leadership;
mod memory;
mod metered;
mod migrate;
mod object;
mod revision;
mod storage;
mod transaction;

pub use cache::{Cache, CacheConfig, Committed, Event, Expired, Page, WatchItem, Watcher};
pub use embedded::{EmbeddedConfig, EmbeddedStorage};
pub use etcd::{EtcdConfig, EtcdStorage};
pub use key::{Key, KeyError, ResourceId};
pub use leadership::Leadership;
pub use memory::MemoryStorage;
pub use metered::{Metered, StorageMetrics};
pub use migrate::{MigrateError, Migrated, migrate};
pub use object::{Attributes, AttributesFn, EventKind, Object, no_attributes};
pub use revision::{Offset, Revision};
pub use storage::{Batch, Change, Entry, History, Snapshot, Storage, StorageError, Tail, TailError};
pub use transaction::{CommitError, Expect, Op, Transaction};
