//! Forgetting the store's log: what is older than the watch cache's memory is of no use to anybody.

use std::sync::Arc;
use std::time::Duration;

use skep_storage::{Revision, Storage};

/// Revisions live at least this long, and less than twice as long.
const RETENTION: Duration = Duration::from_secs(300);

/// Compacts, again and again, to where the store was one retention ago.
pub(crate) async fn run(storage: Arc<dyn Storage>) {
    let mut earlier = None;
    let mut every = tokio::time::interval(RETENTION);
    loop {
        every.tick().await;
        earlier = step(&*storage, earlier).await;
    }
}

/// Forgets what was there at the step before; returns where the store is now.
async fn step(storage: &dyn Storage, earlier: Option<Revision>) -> Option<Revision> {
    if let Some(through) = earlier
        && let Err(error) = storage.compact(through).await
    {
        tracing::warn!(%error, %through, "the store's log could not be compacted, it grows until it can");
    }
    match storage.revision().await {
        Ok(revision) => Some(revision),
        Err(error) => {
            tracing::warn!(%error, "the store's revision could not be read");
            earlier
        }
    }
}

#[cfg(test)]
mod tests {
    use skep_storage::{Expect, Key, MemoryStorage, ResourceId, TailError, Transaction};

    use super::*;

    #[tokio::test]
    async fn revisions_are_forgotten_after_one_retention_and_not_before() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let first = storage.revision().await.unwrap();
        let earlier = step(&*storage, None).await;
        let key = Key::new(ResourceId::new("", "pods").unwrap(), Some("default"), "a").unwrap();
        storage.commit(Transaction::put(key, "{}", Expect::Any)).await.unwrap();
        let earlier = step(&*storage, earlier).await;
        assert!(storage.tail(first).await.is_ok(), "the write is younger than a retention");
        step(&*storage, earlier).await;
        assert!(matches!(storage.tail(first).await, Err(TailError::Compacted { .. })));
    }
}
