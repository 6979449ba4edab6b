//! The data path's tables as targets of reconcilers, and the order in which Services are written.

mod maglev;
mod rows;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    ops::Bound,
    sync::Arc,
    time::Instant,
};

use skep_datapath::{
    BackendAddress, BackendSlot, Frontend as FrontendRow, FrontendKey as RowKey, MapTable, SourceRange,
    TableError, Tables,
};
use skep_loadbalancer::{Changes, Pinned, Set};
use skep_model::{IpCidr, SetId};
use skep_table::{Counters, Outcome, Reconciler, Target};

use self::maglev::{MaglevMap, MaglevTable};
pub(crate) use self::rows::{key as row_key, pinned};

/// A map of the data path.
pub(crate) struct Map<K, V>(Arc<dyn MapTable<K, V>>);

impl<K: Ord, V> Target<K, V> for Map<K, V> {
    type Error = TableError;

    fn update(&mut self, key: &K, value: &V) -> Result<(), TableError> {
        self.0.update(key, value)
    }

    fn delete(&mut self, key: &K) -> Result<(), TableError> {
        self.0.delete(key)
    }

    fn prune(&mut self, desired: &BTreeMap<K, V>) -> Result<usize, TableError> {
        let stale: Vec<K> = self
            .0
            .entries()?
            .into_iter()
            .map(|(key, _)| key)
            .filter(|key| !desired.contains_key(key))
            .collect();
        stale.iter().try_for_each(|key| self.0.delete(key))?;
        Ok(stale.len())
    }
}

/// A reconciler into a map of the data path.
pub(crate) type MapReconciler<K, V> = Reconciler<K, V, Map<K, V>>;

/// A reconciler into `table`; `name` is for logs and metrics.
pub(crate) fn reconciler<K: Ord + Clone + std::fmt::Debug, V: PartialEq>(
    name: &'static str,
    table: &Arc<dyn MapTable<K, V>>,
) -> MapReconciler<K, V> {
    Reconciler::new(name, Map(Arc::clone(table)))
}

/// How much is wanted of each table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) frontends: usize,
    pub(crate) backends: usize,
    pub(crate) maglev: usize,
}

/// Frontends, and what their sets consist of: slots of backends, Maglev tables, source ranges.
///
/// A set's slots, table and ranges are written before any frontend that needs them, and removed after: no packet ever
/// finds a frontend that counts more slots than there are, or that admits by ranges which are not there yet.
pub(crate) struct ServiceTables {
    frontends: MapReconciler<RowKey, FrontendRow>,
    backends: MapReconciler<BackendSlot, BackendAddress>,
    maglev: Reconciler<u32, MaglevTable, MaglevMap>,
    sources: MapReconciler<SourceRange, ()>,
    /// Frontends whose set could not be written in full yet.
    held: BTreeMap<RowKey, FrontendRow>,
}

impl ServiceTables {
    /// Over the data path's maps.
    pub(crate) fn new(tables: &Tables) -> Self {
        ServiceTables {
            frontends: reconciler("frontends", &tables.frontends),
            backends: reconciler("backends", &tables.backends),
            maglev: Reconciler::new("maglev", MaglevMap::new(&tables.maglev)),
            sources: reconciler("sources", &tables.sources),
            held: BTreeMap::new(),
        }
    }

    /// What an earlier process left, to be adopted.
    pub(crate) fn pinned(tables: &Tables) -> Result<Pinned, TableError> {
        pinned(tables)
    }

    /// Writes what changed; says when to try again what failed.
    pub(crate) fn apply(&mut self, changes: &Changes, now: Instant) -> Option<Instant> {
        if changes.is_empty() {
            return self.retry(now);
        }
        for (id, set) in &changes.sets {
            self.grow(*id, set);
        }
        self.reconcile_sets(now);
        for key in changes.removed_frontends.iter().map(rows::key) {
            self.frontends.table().remove(&key);
            self.held.remove(&key);
        }
        let broken = self.broken_sets();
        for (key, frontend) in &changes.frontends {
            self.put(rows::key(key), rows::frontend(frontend), &broken);
        }
        self.frontends.reconcile(now);
        for (id, set) in &changes.sets {
            self.shrink(*id, Some(set));
        }
        for id in &changes.removed_sets {
            self.shrink(*id, None);
        }
        self.retry(now)
    }

    /// Says that every Service and slice is known, so that what an earlier process left may go.
    pub(crate) fn complete(&mut self) {
        self.frontends.table().complete();
        self.backends.table().complete();
        self.maglev.table().complete();
        self.sources.table().complete();
    }

    /// Tries again what failed; says when there is more to try.
    pub(crate) fn retry(&mut self, now: Instant) -> Option<Instant> {
        let sets = self.reconcile_sets(now);
        if !self.held.is_empty() {
            let broken = self.broken_sets();
            for (key, row) in std::mem::take(&mut self.held) {
                self.put(key, row, &broken);
            }
        }
        let frontends = retry_at(self.frontends.reconcile(now));
        sets.into_iter().chain(frontends).min()
    }

    /// How much is wanted.
    pub(crate) fn sizes(&self) -> Sizes {
        Sizes {
            frontends: self.frontends.desired().len() + self.held.len(),
            backends: self.backends.desired().len(),
            maglev: self.maglev.desired().len(),
        }
    }

    /// What was done so far, by table.
    pub(crate) fn counters(&self) -> [(&'static str, Counters); 4] {
        [
            ("frontends", self.frontends.counters()),
            ("backends", self.backends.counters()),
            ("maglev", self.maglev.counters()),
            ("sources", self.sources.counters()),
        ]
    }

    fn grow(&mut self, id: SetId, set: &Set) {
        for (slot, backend) in (0u16..).zip(set.backends.iter()) {
            let address = BackendAddress { ip: backend.ip, port: backend.port.get() };
            self.backends.table().upsert(BackendSlot { set: id.0, slot }, address);
        }
        if set.maglev > 0 {
            let table = MaglevTable { size: set.maglev, backends: Arc::clone(&set.backends) };
            self.maglev.table().upsert(id.0, table);
        }
        for cidr in set.sources.iter() {
            self.sources.table().upsert(SourceRange { set: id.0, cidr: *cidr }, ());
        }
    }

    /// Forgets what the set does not have any more; `None` when it is gone.
    fn shrink(&mut self, id: SetId, set: Option<&Set>) {
        let count = set.map_or(0, |set| rows::count(&set.backends));
        let first = BackendSlot { set: id.0, slot: count };
        let last = BackendSlot { set: id.0, slot: u16::MAX };
        let surplus: Vec<BackendSlot> =
            self.backends.desired().range(first..=last).map(|(slot, _)| *slot).collect();
        for slot in surplus {
            self.backends.table().remove(&slot);
        }
        if set.is_none_or(|set| set.maglev == 0) {
            self.maglev.table().remove(&id.0);
        }
        let kept = set.map(|set| &*set.sources).unwrap_or_default();
        let lowest = IpCidr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let from = lowest.map_or(Bound::Unbounded, |cidr| Bound::Included(SourceRange { set: id.0, cidr }));
        let of_set = self.sources.desired().range((from, Bound::Unbounded)).map(|(range, _)| range);
        let stale: Vec<SourceRange> = of_set
            .take_while(|range| range.set == id.0)
            .filter(|range| !kept.contains(&range.cidr))
            .copied()
            .collect();
        for range in stale {
            self.sources.table().remove(&range);
        }
    }

    fn put(&mut self, key: RowKey, row: FrontendRow, broken: &BTreeSet<u32>) {
        if broken.contains(&row.set) {
            self.held.insert(key, row);
        } else {
            self.held.remove(&key);
            self.frontends.table().upsert(key, row);
        }
    }

    fn reconcile_sets(&mut self, now: Instant) -> Option<Instant> {
        let outcomes =
            [self.backends.reconcile(now), self.maglev.reconcile(now), self.sources.reconcile(now)];
        outcomes.into_iter().filter_map(retry_at).min()
    }

    /// Sets that are not in the maps in full.
    fn broken_sets(&self) -> BTreeSet<u32> {
        let slots = self.backends.failing().map(|slot| slot.set);
        let ranges = self.sources.failing().map(|range| range.set);
        slots.chain(self.maglev.failing().copied()).chain(ranges).collect()
    }
}

/// When to try again, if at all.
pub(crate) fn retry_at(outcome: Outcome) -> Option<Instant> {
    match outcome {
        Outcome::Converged => None,
        Outcome::RetryAt(at) => Some(at),
    }
}
