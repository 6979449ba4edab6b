//! The three verbs that desired state is reconciled through, and an in-memory fake of them.

use std::{collections::BTreeMap, fmt, sync::Mutex};

/// Why a row could not be stored, removed or listed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The map is full.
    #[error("map {table} is full ({capacity} entries)")]
    Full {
        /// Name of the map.
        table: &'static str,
        /// How many entries it holds.
        capacity: u32,
    },
    /// The row's address family is not carried yet.
    #[error("map {table} holds IPv4 only: {row}")]
    Family {
        /// Name of the map.
        table: &'static str,
        /// The row.
        row: String,
    },
    /// The kernel refused.
    #[error("map {table}: {source}")]
    Kernel {
        /// Name of the map.
        table: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A typed map. All verbs are idempotent, so that a reconciler may repeat them.
pub trait MapTable<K, V>: Send + Sync {
    /// Stores a row, replacing an older one of the same key.
    fn update(&self, key: &K, value: &V) -> Result<(), TableError>;

    /// Removes a row; removing an absent one succeeds.
    fn delete(&self, key: &K) -> Result<(), TableError>;

    /// Every row, in no particular order. Rows that change meanwhile may be missed or seen in either state.
    fn entries(&self) -> Result<Vec<(K, V)>, TableError>;
}

/// A table in memory, for tests of whatever reconciles.
pub struct FakeTable<K, V> {
    rows: Mutex<BTreeMap<K, V>>,
}

impl<K: Ord, V> Default for FakeTable<K, V> {
    fn default() -> Self {
        Self { rows: Mutex::new(BTreeMap::new()) }
    }
}

impl<K: Ord + Clone, V: Clone> FakeTable<K, V> {
    /// The rows in key order.
    #[must_use]
    pub fn rows(&self) -> BTreeMap<K, V> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<K, V>> {
        self.rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<K, V> fmt::Debug for FakeTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeTable").finish_non_exhaustive()
    }
}

impl<K: Ord + Clone + Send + Sync, V: Clone + Send + Sync> MapTable<K, V> for FakeTable<K, V> {
    fn update(&self, key: &K, value: &V) -> Result<(), TableError> {
        self.lock().insert(key.clone(), value.clone());
        Ok(())
    }

    fn delete(&self, key: &K) -> Result<(), TableError> {
        self.lock().remove(key);
        Ok(())
    }

    fn entries(&self) -> Result<Vec<(K, V)>, TableError> {
        Ok(self.lock().iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_of_the_fake_is_idempotent() {
        let table = FakeTable::default();
        for _ in 0..2 {
            table.update(&1, &"a").unwrap();
        }
        assert_eq!(table.entries().unwrap(), vec![(1, "a")]);
        for _ in 0..2 {
            table.delete(&1).unwrap();
        }
        assert!(table.rows().is_empty());
    }
}
