//! The data path's tables as targets of reconcilers, and the order in which Services are written.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use skep_datapath::{BackendAddress, BackendSlot, Frontend as FrontendRow, MapTable, TableError};
use skep_loadbalancer::Changes;
use skep_model::{Frontend, FrontendAddress, FrontendId};
use skep_table::{Counters, Outcome, Reconciler, Target};

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

/// Frontends and the slots of their backends.
///
/// A frontend that grows has its slots written first, one that shrinks is written before its slots are removed: no
/// packet ever finds a frontend that counts more slots than there are.
pub(crate) struct ServiceTables {
    frontends: MapReconciler<FrontendAddress, FrontendRow>,
    backends: MapReconciler<BackendSlot, BackendAddress>,
}

impl ServiceTables {
    /// Over the data path's maps.
    pub(crate) fn new(
        frontends: &Arc<dyn MapTable<FrontendAddress, FrontendRow>>,
        backends: &Arc<dyn MapTable<BackendSlot, BackendAddress>>,
    ) -> Self {
        ServiceTables {
            frontends: reconciler("frontends", frontends),
            backends: reconciler("backends", backends),
        }
    }

    /// Numbers that an earlier process gave, to be adopted.
    pub(crate) fn pinned(
        frontends: &Arc<dyn MapTable<FrontendAddress, FrontendRow>>,
    ) -> Result<Vec<(FrontendAddress, FrontendId)>, TableError> {
        let entries = frontends.entries()?;
        Ok(entries.into_iter().map(|(address, row)| (address, FrontendId(row.id))).collect())
    }

    /// Writes what changed.
    pub(crate) fn apply(&mut self, changes: &Changes, now: Instant) -> Option<Instant> {
        // The maps carry IPv4 so far; the rows of the other family would only fail.
        let carried = || changes.frontends.values().filter(|frontend| frontend.address.ip.is_ipv4());
        let mut surplus = Vec::new();
        for (address, id) in &changes.removed_frontends {
            surplus.extend(self.slots(*id, 0));
            self.frontends.table().remove(address);
        }
        for frontend in carried() {
            for (slot, address) in slots_of(frontend) {
                self.backends.table().upsert(slot, address);
            }
        }
        self.backends.reconcile(now);
        for frontend in carried() {
            let count = count_of(frontend);
            self.frontends.table().upsert(frontend.address, FrontendRow { id: frontend.id.0, count });
            surplus.extend(self.slots(frontend.id, count));
        }
        self.frontends.reconcile(now);
        for slot in surplus {
            self.backends.table().remove(&slot);
        }
        self.retry(now)
    }

    /// Says that every Service and slice is known, so that what an earlier process left may go.
    pub(crate) fn complete(&mut self) {
        self.frontends.table().complete();
        self.backends.table().complete();
    }

    /// Tries again what failed; says when there is more to try.
    pub(crate) fn retry(&mut self, now: Instant) -> Option<Instant> {
        let outcomes = [self.frontends.reconcile(now), self.backends.reconcile(now)];
        outcomes.into_iter().filter_map(retry_at).min()
    }

    /// How many frontends and slots are wanted.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.frontends.desired().len(), self.backends.desired().len())
    }

    /// What was done so far, by table.
    pub(crate) fn counters(&self) -> [(&'static str, Counters); 2] {
        [("frontends", self.frontends.counters()), ("backends", self.backends.counters())]
    }

    fn slots(&self, frontend: FrontendId, from: u16) -> Vec<BackendSlot> {
        let first = BackendSlot { frontend: frontend.0, slot: from };
        let last = BackendSlot { frontend: frontend.0, slot: u16::MAX };
        self.backends.desired().range(first..=last).map(|(slot, _)| *slot).collect()
    }
}

/// When to try again, if at all.
pub(crate) fn retry_at(outcome: Outcome) -> Option<Instant> {
    match outcome {
        Outcome::Converged => None,
        Outcome::RetryAt(at) => Some(at),
    }
}

fn count_of(frontend: &Frontend) -> u16 {
    u16::try_from(frontend.backends.len()).unwrap_or(u16::MAX)
}

fn slots_of(frontend: &Frontend) -> impl Iterator<Item = (BackendSlot, BackendAddress)> {
    let slots = (0..count_of(frontend)).map(|slot| BackendSlot { frontend: frontend.id.0, slot });
    let addresses =
        frontend.backends.iter().map(|backend| BackendAddress { ip: backend.ip, port: backend.port.get() });
    slots.zip(addresses)
}

#[cfg(test)]
mod tests {
    use skep_datapath::FakeTable;
    use skep_model::{Backend, FrontendKind, NamespacedName, Port, Protocol};

    use super::*;

    fn frontend(id: u32, backends: &[u8]) -> Frontend {
        let port = Port::new(80).unwrap();
        let protocol = Protocol::Tcp;
        Frontend {
            id: FrontendId(id),
            address: FrontendAddress { ip: [10, 96, 0, id as u8].into(), port, protocol },
            kind: FrontendKind::ClusterIp,
            service: NamespacedName::new("a", "b"),
            port_name: String::new(),
            backends: backends
                .iter()
                .map(|n| Backend { ip: [10, 244, 0, *n].into(), port, protocol })
                .collect(),
            affinity_seconds: None,
        }
    }

    struct Fixture {
        frontends: Arc<FakeTable<FrontendAddress, FrontendRow>>,
        backends: Arc<FakeTable<BackendSlot, BackendAddress>>,
        tables: ServiceTables,
    }

    fn fixture() -> Fixture {
        let (frontends, backends) = (Arc::new(FakeTable::default()), Arc::new(FakeTable::default()));
        let tables = ServiceTables::new(&(frontends.clone() as _), &(backends.clone() as _));
        Fixture { frontends, backends, tables }
    }

    impl Fixture {
        fn write(&mut self, frontend: Frontend) {
            let changes = Changes { frontends: [(frontend.address, frontend)].into(), ..Changes::default() };
            assert_eq!(self.tables.apply(&changes, Instant::now()), None);
        }

        fn consistent(&self) {
            let slots: usize = self.frontends.rows().values().map(|row| usize::from(row.count)).sum();
            assert_eq!(self.backends.rows().len(), slots);
            for row in self.frontends.rows().values() {
                for slot in 0..row.count {
                    assert!(self.backends.rows().contains_key(&BackendSlot { frontend: row.id, slot }));
                }
            }
        }
    }

    #[test]
    fn slots_follow_a_frontend_that_grows_shrinks_and_goes() {
        let mut fixture = fixture();
        for backends in [&[1, 2][..], &[1, 2, 3], &[3], &[]] {
            fixture.write(frontend(1, backends));
            fixture.consistent();
        }
        fixture.write(frontend(2, &[1]));
        let gone = frontend(2, &[1]);
        let changes = Changes { removed_frontends: [(gone.address, gone.id)].into(), ..Changes::default() };
        fixture.tables.apply(&changes, Instant::now());
        fixture.consistent();
        assert_eq!(fixture.frontends.rows().len(), 1);
    }

    #[test]
    fn what_an_earlier_process_left_goes_once_everything_is_known() {
        let mut fixture = fixture();
        let stale = frontend(9, &[]);
        fixture.frontends.update(&stale.address, &FrontendRow { id: 9, count: 1 }).unwrap();
        let address = BackendAddress { ip: [10, 0, 0, 1].into(), port: 1 };
        fixture.backends.update(&BackendSlot { frontend: 9, slot: 0 }, &address).unwrap();
        fixture.write(frontend(1, &[1]));
        assert_eq!(fixture.frontends.rows().len(), 2);
        fixture.tables.complete();
        assert_eq!(fixture.tables.retry(Instant::now()), None);
        fixture.consistent();
    }
}
