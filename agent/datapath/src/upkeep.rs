//! What a running data path is asked: flows, affinity, counters, events, and the collection of what has ended.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use skep_abi::{
    Counter, FragmentKey, FragmentValue, V4, V6,
    maps::{self, MapSpec},
};

use crate::{
    affinity::{self, AffinityEntry},
    codec::Family,
    conntrack::{self, CtEntry, CutBackend, GcReport, Timeouts},
    counters::{self, CounterRow},
    datapath::Datapath,
    error::DatapathError,
    events::EventReader,
    pressure::{self, Ledger, MapPressure},
    sys::RawMap,
    table::TableError,
};

/// What is remembered between calls.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    flows4: Ledger,
    flows6: Ledger,
    affinity: Ledger,
    fragments4: HashSet<FragmentKey<V4>>,
    fragments6: HashSet<FragmentKey<V6>>,
}

impl Upkeep {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Datapath {
    /// Every flow of both families.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn conntrack(&self) -> Result<Vec<CtEntry>, DatapathError> {
        let mut flows = conntrack::dump::<V4>(&self.maps.get(&maps::CONNTRACK4)?)?;
        flows.extend(conntrack::dump::<V6>(&self.maps.get(&maps::CONNTRACK6)?)?);
        Ok(flows)
    }

    /// Every client that stays with a backend.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn affinity(&self) -> Result<Vec<AffinityEntry>, DatapathError> {
        let frontends = self.tables().frontends.entries()?;
        Ok(affinity::dump(&self.maps.get(&maps::AFFINITY)?, &frontends)?)
    }

    /// Removes flows that have been idle for longer than their state allows, affinity that has timed out, and ports of
    /// fragments that are long complete; call it every half minute. The report counts flows.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn collect_garbage(&self, timeouts: &Timeouts) -> Result<GcReport, DatapathError> {
        let flows4 = conntrack::collect::<V4>(&self.maps.get(&maps::CONNTRACK4)?, timeouts)?;
        let flows6 = conntrack::collect::<V6>(&self.maps.get(&maps::CONNTRACK6)?, timeouts)?;
        let frontends = self.tables().frontends.entries()?;
        let clients = affinity::collect(&self.maps.get(&maps::AFFINITY)?, &frontends)?;
        let mut state = self.upkeep.lock();
        state.flows4.removed += flows4.removed as u64;
        state.flows6.removed += flows6.removed as u64;
        state.affinity.removed += clients.removed as u64;
        forget_fragments(&self.maps.get(&maps::FRAGMENTS4)?, &maps::FRAGMENTS4, &mut state.fragments4)?;
        forget_fragments(&self.maps.get(&maps::FRAGMENTS6)?, &maps::FRAGMENTS6, &mut state.fragments6)?;
        Ok(flows4.and(flows6))
    }

    /// Ends the flows to a backend that was removed, and the affinity that leads there. Says how many entries went.
    /// Meant for UDP, whose clients do not notice; TCP flows may finish.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn cut_backend(&self, cut: &CutBackend) -> Result<usize, DatapathError> {
        self.cut_backends(std::slice::from_ref(cut))
    }

    /// As [`Datapath::cut_backend`], for many with one look.
    ///
    /// # Errors
    /// As there.
    pub fn cut_backends(&self, cuts: &[CutBackend]) -> Result<usize, DatapathError> {
        let flows4 = conntrack::cut::<V4>(&self.maps.get(&maps::CONNTRACK4)?, cuts)?;
        let flows6 = conntrack::cut::<V6>(&self.maps.get(&maps::CONNTRACK6)?, cuts)?;
        let clients = affinity::cut(&self.maps.get(&maps::AFFINITY)?, cuts)?;
        let mut state = self.upkeep.lock();
        state.flows4.removed += flows4 as u64;
        state.flows6.removed += flows6 as u64;
        state.affinity.removed += clients as u64;
        Ok(flows4 + flows6 + clients)
    }

    /// How full conntrack and affinity are, what they have evicted, and who fills conntrack. Reads the whole maps: ask
    /// now and then.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn pressure(&self) -> Result<Vec<MapPressure>, DatapathError> {
        let mut state = self.upkeep.lock();
        let affinity = self.maps.get(&maps::AFFINITY)?;
        let clients = affinity.rows().map_err(|source| kernel_error(&maps::AFFINITY, source))?.iter().count();
        let added = self.added(Counter::ADDED_AFFINITY)?;
        Ok(vec![
            self.pressure_of::<V4>(&mut state.flows4, Counter::ADDED_FLOWS4)?,
            self.pressure_of::<V6>(&mut state.flows6, Counter::ADDED_FLOWS6)?,
            MapPressure {
                map: maps::AFFINITY.name,
                entries: clients,
                capacity: affinity.facts().entries,
                inserts: added,
                evictions: state.affinity.count(added, clients),
                ..MapPressure::default()
            },
        ])
    }

    fn pressure_of<A: Family>(
        &self,
        ledger: &mut Ledger,
        counter: u32,
    ) -> Result<MapPressure, DatapathError> {
        let map = self.maps.get(&A::CONNTRACK)?;
        let flows = conntrack::dump::<A>(&map)?;
        let inserts = self.added(counter)?;
        let (top_clients, top_sets) = pressure::top(&flows);
        Ok(MapPressure {
            map: A::CONNTRACK.name,
            entries: flows.len(),
            capacity: map.facts().entries,
            inserts,
            evictions: ledger.count(inserts, flows.len()),
            top_clients,
            top_sets,
        })
    }

    fn added(&self, index: u32) -> Result<u64, DatapathError> {
        Ok(counters::packets(&*self.maps.get(&maps::COUNTERS)?, index, cpus()?)?)
    }

    /// Exact counters per hook and reason, those that are not zero.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn counters(&self) -> Result<Vec<CounterRow>, DatapathError> {
        Ok(counters::read(&self.maps.get(&maps::COUNTERS)?, cpus()?)?)
    }

    /// The reader of sampled drops; at most one at a time.
    ///
    /// # Errors
    /// When the ring buffer cannot be mapped.
    pub fn events(&self) -> Result<EventReader, DatapathError> {
        let paths = self.maps.paths();
        let path = paths.iter().find(|(name, _)| *name == maps::EVENTS.name).map(|(_, path)| path);
        let missing =
            || DatapathError::Incompatible { object: "maps".into(), what: maps::EVENTS.name.into() };
        EventReader::open(path.ok_or_else(missing)?)
    }
}

fn cpus() -> Result<usize, DatapathError> {
    aya::util::nr_cpus().map_err(|(path, source)| DatapathError::File {
        action: "cannot read",
        path: path.into(),
        source,
    })
}

fn kernel_error(spec: &MapSpec, source: std::io::Error) -> TableError {
    TableError::Kernel { table: spec.name, source }
}

/// Removes what was there at the last look, too: datagrams are put together within seconds.
fn forget_fragments<A: Family>(
    map: &Arc<RawMap>,
    spec: &MapSpec,
    known: &mut HashSet<FragmentKey<A>>,
) -> Result<(), DatapathError> {
    let failed = |source| kernel_error(spec, source);
    let now: HashSet<FragmentKey<A>> = map
        .entries::<FragmentKey<A>, FragmentValue>()
        .map_err(failed)?
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    for old in known.intersection(&now) {
        map.delete(old).map_err(failed)?;
    }
    *known = now.difference(known).copied().collect();
    Ok(())
}
