//! Numbers for things that live in maps: the same thing keeps its number, a number is not reused at once.

use std::collections::{BTreeMap, BTreeSet};

/// Numbers from 1 up, each held by one key.
#[derive(Clone, Debug)]
pub struct Ids<K> {
    numbers: BTreeMap<K, u32>,
    used: BTreeSet<u32>,
    last: u32,
}

impl<K> Default for Ids<K> {
    fn default() -> Self {
        Ids { numbers: BTreeMap::new(), used: BTreeSet::new(), last: 0 }
    }
}

impl<K: Ord + Clone> Ids<K> {
    /// Takes over a number that an earlier process gave; false when another key has it, or the key another number.
    pub fn adopt(&mut self, key: K, number: u32) -> bool {
        if number == 0 || self.used.contains(&number) || self.numbers.contains_key(&key) {
            return false;
        }
        self.used.insert(number);
        self.numbers.insert(key, number);
        self.last = self.last.max(number);
        true
    }

    /// The key's number, a new one when it has none; `None` when every number is used.
    pub fn number(&mut self, key: &K) -> Option<u32> {
        if let Some(&number) = self.numbers.get(key) {
            return Some(number);
        }
        let number = self.next()?;
        self.used.insert(number);
        self.numbers.insert(key.clone(), number);
        self.last = number;
        Some(number)
    }

    /// The key's number, if it has one.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<u32> {
        self.numbers.get(key).copied()
    }

    /// Frees the key's number.
    pub fn release(&mut self, key: &K) -> Option<u32> {
        let number = self.numbers.remove(key)?;
        self.used.remove(&number);
        Some(number)
    }

    /// Frees every number whose key does not satisfy `keep`.
    pub fn retain(&mut self, mut keep: impl FnMut(&K) -> bool) {
        let used = &mut self.used;
        self.numbers.retain(|key, number| {
            let kept = keep(key);
            if !kept {
                used.remove(number);
            }
            kept
        });
    }

    /// The first free number after the last one given, so that a freed number rests as long as possible.
    fn next(&self) -> Option<u32> {
        let free = |number: u32| (number != 0 && !self.used.contains(&number)).then_some(number);
        let mut candidate = self.last;
        for _ in 0..=self.used.len() + 1 {
            candidate = candidate.wrapping_add(1);
            if let Some(number) = free(candidate) {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_number_and_a_freed_one_rests() {
        let mut ids = Ids::default();
        assert_eq!((ids.number(&"a"), ids.number(&"b"), ids.number(&"a")), (Some(1), Some(2), Some(1)));
        ids.release(&"a");
        assert_eq!(ids.number(&"c"), Some(3));
    }

    #[test]
    fn adopted_numbers_are_not_given_again() {
        let mut ids = Ids::default();
        assert!(ids.adopt("a", 7));
        assert!(!ids.adopt("b", 7));
        assert!(!ids.adopt("a", 8));
        assert!(!ids.adopt("z", 0));
        assert_eq!(ids.number(&"b"), Some(8));
        assert_eq!(ids.number(&"a"), Some(7));
    }

    #[test]
    fn numbering_wraps_past_zero() {
        let mut ids = Ids::default();
        ids.adopt("a", u32::MAX);
        assert_eq!(ids.number(&"b"), Some(1));
    }
}
