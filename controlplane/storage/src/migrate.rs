//! Moving everything from one store to another, for the day that one machine is no longer enough.

use futures::TryFutureExt;

use crate::{CommitError, Expect, Op, Revision, Storage, StorageError, Transaction};

/// Objects copied in one transaction, and the size at which it is closed earlier: etcd limits requests.
const OPS: usize = 100;
const BYTES: usize = 1 << 20;

/// What was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Objects copied.
    pub objects: usize,
    /// The source's last revision; all of the target's are larger.
    pub from: Revision,
    /// The target's last revision.
    pub to: Revision,
}

/// Why nothing, or not everything, was moved.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A store could not be read.
    #[error("a store could not be read")]
    Read(#[from] StorageError),
    /// The target has objects of its own.
    #[error("the target store holds {objects} objects already: give an empty one")]
    NotEmpty {
        /// How many.
        objects: usize,
    },
    /// The target would serve revisions that clients have seen with another meaning.
    #[error(
        "the target serves revision {to}, the source already served {from}: open the target with an offset"
    )]
    Backwards {
        /// The source's last revision.
        from: Revision,
        /// The target's.
        to: Revision,
    },
    /// The target did not take an object.
    #[error("the target did not take an object: empty it and try again")]
    Write(#[from] CommitError),
}

/// Copies every object of `source` into `target`, which must be empty and have an offset of at least the source's
/// revision. Nothing may write to the source meanwhile.
pub async fn migrate(source: &dyn Storage, target: &dyn Storage) -> Result<Migrated, MigrateError> {
    let (present, began) =
        target.scan().map_ok(|snapshot| (snapshot.entries.len(), snapshot.revision)).await?;
    if present > 0 {
        return Err(MigrateError::NotEmpty { objects: present });
    }
    let snapshot = source.scan().await?;
    if began < snapshot.revision {
        return Err(MigrateError::Backwards { from: snapshot.revision, to: began });
    }
    let objects = snapshot.entries.len();
    let mut transaction = Transaction::default();
    let mut bytes = 0;
    let mut to = began;
    for entry in snapshot.entries {
        let length = entry.value.len();
        if transaction.ops.len() == OPS || (bytes > 0 && bytes + length > BYTES) {
            to = target.commit(std::mem::take(&mut transaction)).await?;
            bytes = 0;
        }
        bytes += length;
        transaction.ops.push(Op::Put { key: entry.key, value: entry.value, expect: Expect::Absent });
    }
    if !transaction.ops.is_empty() {
        to = target.commit(transaction).await?;
    }
    Ok(Migrated { objects, from: snapshot.revision, to })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Key, MemoryStorage, Offset, ResourceId};

    async fn filled(objects: usize) -> MemoryStorage {
        let store = MemoryStorage::new();
        for number in 0..objects {
            let resource = ResourceId::new("", "pods").unwrap();
            let key = Key::new(resource, Some("default"), &format!("pod-{number}")).unwrap();
            // Some are so large that few fit in one request.
            let value = vec![b'x'; if number % 10 == 0 { 400_000 } else { 100 }];
            store.commit(Transaction::put(key, value, Expect::Absent)).await.unwrap();
        }
        store
    }

    async fn values(store: &MemoryStorage) -> BTreeMap<Key, bytes::Bytes> {
        store.scan().await.unwrap().entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
    }

    #[tokio::test]
    async fn everything_arrives_and_time_goes_on() {
        let source = filled(250).await;
        let last = source.revision().await.unwrap();
        let target = MemoryStorage::with_offset(Offset(last.0));
        let moved = migrate(&source, &target).await.unwrap();
        assert_eq!((moved.objects, moved.from), (250, last));
        assert_eq!(values(&source).await, values(&target).await);
        assert!(target.scan().await.unwrap().entries.iter().all(|entry| entry.revision > last));
    }

    #[tokio::test]
    async fn refuses_targets_in_use_or_behind() {
        let source = filled(3).await;
        let behind = migrate(&source, &MemoryStorage::new()).await;
        assert!(matches!(behind, Err(MigrateError::Backwards { .. })));
        let used = migrate(&source, &filled(1).await).await;
        assert!(matches!(used, Err(MigrateError::NotEmpty { objects: 1 })));
    }
}
