//! Numbers for things that live in maps: a number is not reused at once, and those that an earlier process gave are
//! kept by whoever had them.

use std::collections::BTreeSet;

/// Numbers from 1 up.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    used: BTreeSet<u32>,
    last: u32,
}

impl Ids {
    /// Marks a number of an earlier process as used; false when it is so already, or zero.
    pub fn reserve(&mut self, number: u32) -> bool {
        self.last = self.last.max(number);
        number != 0 && self.used.insert(number)
    }

    /// A number that nobody has; `None` when every number is used.
    pub fn take(&mut self) -> Option<u32> {
        let number = self.next()?;
        self.used.insert(number);
        self.last = number;
        Some(number)
    }

    /// Frees a number.
    pub fn release(&mut self, number: u32) {
        self.used.remove(&number);
    }

    /// Frees every number that does not satisfy `keep`.
    pub fn retain(&mut self, keep: impl FnMut(&u32) -> bool) {
        self.used.retain(keep);
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
    fn a_freed_number_rests() {
        let mut ids = Ids::default();
        assert_eq!((ids.take(), ids.take()), (Some(1), Some(2)));
        ids.release(1);
        assert_eq!(ids.take(), Some(3));
    }

    #[test]
    fn reserved_numbers_are_not_given_again() {
        let mut ids = Ids::default();
        assert!(ids.reserve(7));
        assert!(!ids.reserve(7) && !ids.reserve(0));
        assert_eq!(ids.take(), Some(8));
    }

    #[test]
    fn numbering_wraps_past_zero() {
        let mut ids = Ids::default();
        ids.reserve(u32::MAX);
        assert_eq!(ids.take(), Some(1));
    }
}
