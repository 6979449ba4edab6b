//! The task that follows the store's tail into the cache.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt;
use tokio::time::MissedTickBehavior;

use super::{Inner, TailError};
use crate::{Revision, Storage, StorageError, Tail};

/// Batches applied under one lock.
const CHUNK: usize = 256;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Runs until the cache is gone. `after` is the revision the cache was loaded at.
pub(super) async fn drive(cache: Weak<Inner>, mut after: Revision) {
    let mut pause = FIRST_PAUSE;
    loop {
        let Some(storage) = cache.upgrade().map(|inner| Arc::clone(&inner.storage)) else { return };
        let began = after;
        let outcome = match storage.tail(after).await {
            Ok(tail) => follow(&cache, tail).await,
            Err(TailError::Compacted { oldest }) => start_over(&cache, &*storage, after, oldest).await,
            Err(TailError::Storage(error)) => Err(error),
        };
        let Some(inner) = cache.upgrade() else { return };
        after = inner.revision();
        drop(inner);
        if let Err(error) = outcome {
            tracing::warn!(%error, revision = %after, "the cache lost the store, trying again");
        }
        pause = if after > began { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        tokio::time::sleep(pause).await;
    }
}

/// Applies a tail until it ends.
async fn follow(cache: &Weak<Inner>, tail: Tail) -> Result<(), StorageError> {
    let Some(every) = cache.upgrade().map(|inner| inner.config.bookmark_every) else { return Ok(()) };
    let mut bookmarks = tokio::time::interval(every);
    bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut chunks = tail.ready_chunks(CHUNK);
    loop {
        tokio::select! {
            biased;
            chunk = chunks.next() => {
                let Some(chunk) = chunk else { return Ok(()) };
                let mut batches = Vec::with_capacity(chunk.len());
                let mut failure = None;
                for item in chunk {
                    match item {
                        Ok(batch) => batches.push(batch),
                        Err(error) => {
                            failure = Some(error);
                            break;
                        }
                    }
                }
                let Some(inner) = cache.upgrade() else { return Ok(()) };
                inner.apply(&batches);
                if let Some(error) = failure {
                    return Err(error);
                }
            }
            _ = bookmarks.tick() => {
                let Some(inner) = cache.upgrade() else { return Ok(()) };
                inner.bookmark();
            }
        }
    }
}

/// The store no longer has what the cache missed: load the current state and end all watches.
async fn start_over(
    cache: &Weak<Inner>,
    storage: &dyn Storage,
    after: Revision,
    oldest: Revision,
) -> Result<(), StorageError> {
    tracing::warn!(%after, %oldest, "the store has compacted what the cache missed: loading it anew");
    let snapshot = storage.scan().await?;
    if let Some(inner) = cache.upgrade() {
        inner.reset(snapshot);
    }
    Ok(())
}
