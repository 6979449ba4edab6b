//! Brings a target to what its table wants, a key at a time, and tries again what failed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{Debug, Display},
    time::{Duration, Instant},
};

use crate::table::Table;

/// Shortest and longest wait before a failed key is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

/// Where desired entries are written. Each verb may be repeated without harm.
pub trait Target<K, V> {
    /// Why a verb failed.
    type Error: Display;

    /// Makes `key` be `value`, whatever it was.
    fn update(&mut self, key: &K, value: &V) -> Result<(), Self::Error>;

    /// Makes `key` absent; succeeds when it was.
    fn delete(&mut self, key: &K) -> Result<(), Self::Error>;

    /// Removes every entry whose key is not in `desired`; says how many.
    fn prune(&mut self, desired: &BTreeMap<K, V>) -> Result<usize, Self::Error>;
}

/// What reconciling has done since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries written.
    pub updated: u64,
    /// Entries removed because they are no longer wanted.
    pub deleted: u64,
    /// Entries removed because an earlier process left them.
    pub pruned: u64,
    /// Verbs that failed.
    pub failed: u64,
}

/// The result of one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target is what the table wants.
    Converged,
    /// Some keys failed; a pass at this time will try them again.
    RetryAt(Instant),
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    retry_at: Instant,
    wait: Duration,
}

/// A table, its target, and what is between them.
#[derive(Debug)]
pub struct Reconciler<K, V, T> {
    name: &'static str,
    table: Table<K, V>,
    target: T,
    failures: BTreeMap<K, Failure>,
    prune: Option<Failure>,
    pruned: bool,
    counters: Counters,
}

impl<K: Ord + Clone + Debug, V: PartialEq, T: Target<K, V>> Reconciler<K, V, T> {
    /// A reconciler with an empty table; `name` is for logs.
    pub fn new(name: &'static str, target: T) -> Self {
        Reconciler {
            name,
            table: Table::default(),
            target,
            failures: BTreeMap::new(),
            prune: None,
            pruned: false,
            counters: Counters::default(),
        }
    }

    /// The table to write to.
    pub fn table(&mut self) -> &mut Table<K, V> {
        &mut self.table
    }

    /// What is wanted.
    #[must_use]
    pub fn desired(&self) -> &BTreeMap<K, V> {
        self.table.desired()
    }

    /// The target, for reading back.
    #[must_use]
    pub fn target(&self) -> &T {
        &self.target
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The keys that could not be written or removed so far.
    pub fn failing(&self) -> impl Iterator<Item = &K> {
        self.failures.keys()
    }

    /// One pass: changed keys, failed keys whose time has come, and the prune once the table is complete.
    pub fn reconcile(&mut self, now: Instant) -> Outcome {
        let mut keys: BTreeSet<K> = self.table.take_changed();
        keys.extend(
            self.failures.iter().filter(|(_, failure)| failure.retry_at <= now).map(|(key, _)| key.clone()),
        );
        for key in keys {
            self.bring(key, now);
        }
        if self.table.is_complete()
            && !self.pruned
            && self.prune.is_none_or(|failure| failure.retry_at <= now)
        {
            self.sweep(now);
        }
        let retries = self.failures.values().chain(&self.prune).map(|failure| failure.retry_at);
        retries.min().map_or(Outcome::Converged, Outcome::RetryAt)
    }

    fn bring(&mut self, key: K, now: Instant) {
        let (result, count) = match self.table.get(&key) {
            Some(value) => (self.target.update(&key, value), &mut self.counters.updated),
            None => (self.target.delete(&key), &mut self.counters.deleted),
        };
        match result {
            Ok(()) => {
                *count += 1;
                self.failures.remove(&key);
            }
            Err(error) => {
                self.counters.failed += 1;
                let failure = next_failure(self.failures.get(&key), now);
                tracing::warn!(table = self.name, ?key, %error, wait = ?failure.wait, "entry failed, will retry");
                self.failures.insert(key, failure);
            }
        }
    }

    fn sweep(&mut self, now: Instant) {
        match self.target.prune(self.table.desired()) {
            Ok(count) => {
                self.counters.pruned += count as u64;
                self.pruned = true;
                self.prune = None;
                tracing::debug!(table = self.name, count, "pruned");
            }
            Err(error) => {
                self.counters.failed += 1;
                let failure = next_failure(self.prune.as_ref(), now);
                tracing::warn!(table = self.name, %error, wait = ?failure.wait, "prune failed, will retry");
                self.prune = Some(failure);
            }
        }
    }
}

fn next_failure(previous: Option<&Failure>, now: Instant) -> Failure {
    let wait = previous.map_or(RETRY.0, |failure| (failure.wait * 2).min(RETRY.1));
    Failure { retry_at: now + wait, wait }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A map that refuses some writes.
    #[derive(Debug, Default)]
    struct Flaky {
        entries: BTreeMap<u8, u8>,
        refuse: BTreeSet<u8>,
        prunes: usize,
    }

    impl Target<u8, u8> for Flaky {
        type Error = String;

        fn update(&mut self, key: &u8, value: &u8) -> Result<(), String> {
            if self.refuse.contains(key) {
                return Err("full".into());
            }
            self.entries.insert(*key, *value);
            Ok(())
        }

        fn delete(&mut self, key: &u8) -> Result<(), String> {
            if self.refuse.contains(key) {
                return Err("busy".into());
            }
            self.entries.remove(key);
            Ok(())
        }

        fn prune(&mut self, desired: &BTreeMap<u8, u8>) -> Result<usize, String> {
            self.prunes += 1;
            let before = self.entries.len();
            self.entries.retain(|key, _| desired.contains_key(key));
            Ok(before - self.entries.len())
        }
    }

    fn adopted(entries: &[(u8, u8)]) -> Reconciler<u8, u8, Flaky> {
        Reconciler::new("test", Flaky { entries: entries.iter().copied().collect(), ..Flaky::default() })
    }

    #[test]
    fn nothing_is_pruned_before_the_table_is_complete() {
        let mut reconciler = adopted(&[(1, 1), (2, 2)]);
        reconciler.table().upsert(1, 1);
        assert_eq!(reconciler.reconcile(Instant::now()), Outcome::Converged);
        assert_eq!(reconciler.target().entries.len(), 2);
        reconciler.table().complete();
        reconciler.reconcile(Instant::now());
        assert_eq!(reconciler.target().entries, [(1, 1)].into());
        assert_eq!(reconciler.counters().pruned, 1);
    }

    #[test]
    fn pruning_happens_once() {
        let mut reconciler = adopted(&[]);
        reconciler.table().complete();
        reconciler.reconcile(Instant::now());
        reconciler.reconcile(Instant::now());
        assert_eq!(reconciler.target().prunes, 1);
    }

    #[test]
    fn a_failed_key_waits_longer_each_time_and_holds_up_no_other() {
        let mut reconciler = adopted(&[]);
        reconciler.target.refuse.insert(1);
        reconciler.table().replace([(1, 1), (2, 2)]);
        let start = Instant::now();
        let Outcome::RetryAt(first) = reconciler.reconcile(start) else { panic!("should retry") };
        assert_eq!(reconciler.target().entries, [(2, 2)].into());
        let Outcome::RetryAt(second) = reconciler.reconcile(first) else { panic!("should retry") };
        assert!(second - first > first - start);
        assert_eq!(reconciler.failing().collect::<Vec<_>>(), [&1]);
        reconciler.target.refuse.clear();
        assert_eq!(reconciler.reconcile(second), Outcome::Converged);
        assert_eq!(reconciler.target().entries, [(1, 1), (2, 2)].into());
    }

    #[test]
    fn a_key_that_changed_its_mind_while_failing_ends_as_wanted() {
        let mut reconciler = adopted(&[]);
        reconciler.target.refuse.insert(1);
        reconciler.table().upsert(1, 1);
        let Outcome::RetryAt(retry) = reconciler.reconcile(Instant::now()) else { panic!("should retry") };
        reconciler.table().remove(&1);
        reconciler.target.refuse.clear();
        assert_eq!(reconciler.reconcile(retry), Outcome::Converged);
        assert!(reconciler.target().entries.is_empty());
    }

    proptest! {
        #[test]
        fn ends_equal_to_the_table_whatever_was_there(
            left: BTreeMap<u8, u8>,
            steps in proptest::collection::vec((any::<bool>(), 0u8..16, 0u8..4, any::<bool>()), 0..60),
        ) {
            let left: Vec<_> = left.into_iter().collect();
            let mut reconciler = adopted(&left);
            let mut now = Instant::now();
            for (write, key, value, refuse) in steps {
                if write { reconciler.table().upsert(key, value); } else { reconciler.table().remove(&key); }
                if refuse { reconciler.target.refuse.insert(key); } else { reconciler.target.refuse.remove(&key); }
                now += Duration::from_millis(10);
                reconciler.reconcile(now);
            }
            reconciler.target.refuse.clear();
            reconciler.table().complete();
            while let Outcome::RetryAt(retry) = reconciler.reconcile(now) {
                now = retry;
            }
            prop_assert_eq!(&reconciler.target().entries, reconciler.desired());
        }
    }
}
