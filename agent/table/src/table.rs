//! What should be, and which keys have changed since they were last handed out.

use std::collections::{BTreeMap, BTreeSet};

/// A desired-state table. Writing an equal value is not a change.
#[derive(Clone, Debug)]
pub struct Table<K, V> {
    desired: BTreeMap<K, V>,
    changed: BTreeSet<K>,
    complete: bool,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Table { desired: BTreeMap::new(), changed: BTreeSet::new(), complete: false }
    }
}

impl<K: Ord + Clone, V: PartialEq> Table<K, V> {
    /// Wants `key` to be `value`; true when that is news.
    pub fn upsert(&mut self, key: K, value: V) -> bool {
        if self.desired.get(&key) == Some(&value) {
            return false;
        }
        self.changed.insert(key.clone());
        self.desired.insert(key, value);
        true
    }

    /// Wants `key` gone; true when that is news.
    pub fn remove(&mut self, key: &K) -> bool {
        let known = self.desired.remove(key).is_some();
        if known {
            self.changed.insert(key.clone());
        }
        known
    }

    /// Wants exactly these entries, as after a re-list; true when that is news.
    pub fn replace(&mut self, entries: impl IntoIterator<Item = (K, V)>) -> bool {
        let entries: BTreeMap<K, V> = entries.into_iter().collect();
        let gone: Vec<K> = self.desired.keys().filter(|key| !entries.contains_key(*key)).cloned().collect();
        let mut news = !gone.is_empty();
        for key in &gone {
            self.remove(key);
        }
        for (key, value) in entries {
            news |= self.upsert(key, value);
        }
        news
    }

    /// Says that every source has been listed in full, so that what is not here is not wanted.
    pub fn complete(&mut self) {
        self.complete = true;
    }

    /// Whether what is absent here is known to be unwanted.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The wanted value.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.desired.get(key)
    }

    /// Everything that is wanted.
    #[must_use]
    pub fn desired(&self) -> &BTreeMap<K, V> {
        &self.desired
    }

    /// Hands out the keys that changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<K> {
        std::mem::take(&mut self.changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_the_same_value_is_no_change() {
        let mut table = Table::default();
        assert!(table.upsert(1, "a"));
        assert!(!table.upsert(1, "a"));
        assert_eq!(table.take_changed(), [1].into());
        assert_eq!(table.take_changed(), [].into());
    }

    #[test]
    fn replacing_reports_only_differences() {
        let mut table = Table::default();
        table.replace([(1, "a"), (2, "b"), (3, "c")]);
        table.take_changed();
        assert!(table.replace([(1, "a"), (2, "B"), (4, "d")]));
        assert_eq!(table.take_changed(), [2, 3, 4].into());
        assert!(!table.replace([(1, "a"), (2, "B"), (4, "d")]));
    }
}
