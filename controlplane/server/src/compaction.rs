//! Forgetting the store's log: what is older than the watch cache's memory is of no use to anybody.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use skep_storage::{Revision, Storage};

/// Time between two looks at the store.
const EVERY: Duration = Duration::from_secs(30);
/// Looks that a revision is kept for: five minutes.
const LOOKS: usize = 10;
/// Revisions kept at most, however young: at full speed five minutes would fill the disk.
const MOST: u64 = 200_000;

/// Compacts, again and again, for as long as it is polled.
pub(crate) async fn run(storage: Arc<dyn Storage>) {
    let mut memory = Memory::default();
    let mut every = tokio::time::interval(EVERY);
    loop {
        every.tick().await;
        match storage.revision().await {
            Ok(now) => compact(&*storage, memory.look(now)).await,
            Err(error) => tracing::warn!(%error, "the store's revision could not be read"),
        }
    }
}

async fn compact(storage: &dyn Storage, through: Option<Revision>) {
    let Some(through) = through else { return };
    if let Err(error) = storage.compact(through).await {
        tracing::warn!(%error, %through, "the store's log could not be compacted, it grows until it can");
    }
}

/// Where the store was at the last looks.
#[derive(Debug, Default)]
struct Memory {
    seen: VecDeque<Revision>,
    compacted: Revision,
}

impl Memory {
    /// Takes note of the present revision; returns what to compact through, if there is anything new.
    fn look(&mut self, now: Revision) -> Option<Revision> {
        self.seen.push_back(now);
        let old = if self.seen.len() > LOOKS { self.seen.pop_front() } else { None };
        let surplus = now.0.checked_sub(MOST).map(Revision);
        let through = old.max(surplus).filter(|through| *through > self.compacted)?;
        self.compacted = through;
        Some(through)
    }
}

#[cfg(test)]
mod tests {
    use skep_storage::{Expect, Key, MemoryStorage, ResourceId, TailError, Transaction};

    use super::*;

    #[test]
    fn revisions_are_kept_for_the_stated_looks_and_then_forgotten() {
        let mut memory = Memory::default();
        for look in 1..=LOOKS as u64 {
            assert_eq!(memory.look(Revision(look * 100)), None);
        }
        assert_eq!(memory.look(Revision(5_000)), Some(Revision(100)));
        assert_eq!(memory.look(Revision(5_000)), Some(Revision(200)));
    }

    #[test]
    fn an_idle_store_is_left_alone() {
        let mut memory = Memory::default();
        let compactions = (0..100).filter_map(|_| memory.look(Revision(7))).count();
        assert_eq!(compactions, 1);
    }

    #[test]
    fn a_fast_store_is_compacted_before_its_time() {
        let mut memory = Memory::default();
        assert_eq!(memory.look(Revision(10)), None);
        assert_eq!(memory.look(Revision(10 + MOST)), Some(Revision(10)));
    }

    #[tokio::test]
    async fn compaction_reaches_the_store() {
        let storage = MemoryStorage::new();
        let first = storage.revision().await.unwrap();
        let key = Key::new(ResourceId::new("", "pods").unwrap(), Some("default"), "a").unwrap();
        let second = storage.commit(Transaction::put(key, "{}", Expect::Any)).await.unwrap();
        compact(&storage, Some(second)).await;
        assert!(matches!(storage.tail(first).await, Err(TailError::Compacted { .. })));
    }
}
