//! How full the maps are that make room by themselves, what they have forgotten, and who fills them.
//!
//! The kernel does not say when an LRU map evicts. Programs count the entries that they add; what was added, is not
//! there, and was not removed by us was evicted. Readers race with programs, so a count is exact only at rest; it never
//! goes down.

use std::{collections::HashMap, hash::Hash, net::IpAddr};

use crate::conntrack::{CtEntry, CtHalf};

/// State of one map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapPressure {
    /// Name of the map.
    pub map: &'static str,
    /// Entries in it.
    pub entries: usize,
    /// Entries that it has room for.
    pub capacity: u32,
    /// Entries that programs have added since the map was made.
    pub inserts: u64,
    /// Entries that were evicted to make room, since the data path was opened.
    pub evictions: u64,
    /// Clients with the most entries, most first.
    pub top_clients: Vec<(IpAddr, usize)>,
    /// Sets with the most entries, most first.
    pub top_sets: Vec<(u32, usize)>,
}

/// How many are named.
const TOP: usize = 5;

/// Counts evictions of one map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// Inserts and entries when the count began.
    start: Option<(u64, usize)>,
    /// Entries that we removed since.
    pub(crate) removed: u64,
    evictions: u64,
}

impl Ledger {
    /// Takes stock: what programs have added, and what is there.
    pub(crate) fn count(&mut self, inserts: u64, entries: usize) -> u64 {
        let (base, first) = *self.start.get_or_insert((inserts, entries));
        let came = inserts.saturating_sub(base) + first as u64;
        let left = came.saturating_sub(self.removed).saturating_sub(entries as u64);
        self.evictions = self.evictions.max(left);
        self.evictions
    }
}

/// Somebody, and how many flows are theirs.
type Share<T> = (T, usize);

/// Who fills conntrack: by the client's address, and by the set.
pub(crate) fn top(flows: &[CtEntry]) -> (Vec<Share<IpAddr>>, Vec<Share<u32>>) {
    let client = |flow: &CtEntry| match (flow.half, flow.peer) {
        (CtHalf::FromBackend, Some(client)) => client.ip(),
        _ => flow.source.ip(),
    };
    (most(flows.iter().map(client)), most(flows.iter().map(|flow| flow.set).filter(|set| *set != 0)))
}

fn most<T: Ord + Hash + Copy>(items: impl Iterator<Item = T>) -> Vec<Share<T>> {
    let mut counts: HashMap<T, usize> = HashMap::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    let mut counts: Vec<Share<T>> = counts.into_iter().collect();
    counts.sort_unstable_by(|left, right| right.1.cmp(&left.1).then(left.0.cmp(&right.0)));
    counts.truncate(TOP);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_is_neither_there_nor_removed_was_evicted() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.count(1000, 50), 0, "what was before does not count");
        assert_eq!(ledger.count(1040, 90), 0);
        ledger.removed += 30;
        assert_eq!(ledger.count(1050, 70), 0);
        assert_eq!(ledger.count(1060, 60), 20);
        assert_eq!(ledger.count(1060, 65), 20, "a race does not take evictions back");
    }

    #[test]
    fn the_largest_come_first_and_ties_have_an_order() {
        let found = most([3, 1, 2, 3, 1, 9].into_iter());
        assert_eq!(found, [(1, 2), (3, 2), (2, 1), (9, 1)]);
    }
}
