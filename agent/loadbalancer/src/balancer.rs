//! The tables, kept up to date Service by Service: what one event costs does not depend on how many Services there are.

mod changes;
mod entry;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

pub use changes::{Changes, Lost, Report};
use skep_model::{Backend, FrontendAddress, IpCidr, NamespacedName, Scope, SetId};

use self::entry::{Entry, NumberedSet, Subject};
use crate::{
    context::Context,
    frontend::{Frontend, FrontendKey, HealthCheck, Owner, Set},
    ids::Ids,
    input::{HostPorts, Service, Slice},
    maglev, names,
    plan::{Plan, SetKey, WantedRow, WantedSet},
    problem::Problem,
    slots,
};

/// What an earlier process left in the pinned maps.
#[derive(Clone, Debug, Default)]
pub struct Pinned {
    /// The number of each row's set.
    pub rows: BTreeMap<FrontendKey, SetId>,
    /// Each set's backends in slot order.
    pub slots: BTreeMap<SetId, Vec<Backend>>,
}

/// Everything known of Services on this node, and what was computed from it.
#[derive(Debug, Default)]
pub struct LoadBalancer {
    context: Context,
    entries: BTreeMap<Arc<Owner>, Box<Entry>>,
    /// Whose each slice is.
    slices: BTreeMap<NamespacedName, Arc<Owner>>,
    dirty: BTreeSet<Arc<Owner>>,
    frontends: BTreeMap<FrontendKey, Frontend>,
    /// Who waits for an address that an older object has.
    waiting: BTreeMap<FrontendAddress, BTreeSet<Arc<Owner>>>,
    health: BTreeMap<NamespacedName, HealthCheck>,
    ids: Ids,
    /// No source ranges, as most sets have it.
    anybody: Arc<[IpCidr]>,
    pinned: Pinned,
    /// Pinned numbers that a set has taken over.
    taken_over: BTreeSet<SetId>,
    settled: bool,
}

impl LoadBalancer {
    /// An empty load balancer.
    #[must_use]
    pub fn new(context: Context) -> Self {
        LoadBalancer { context, ..LoadBalancer::default() }
    }

    /// Takes over numbers and slots found in pinned maps. To be called before the first event.
    pub fn adopt(&mut self, pinned: Pinned) {
        for set in pinned.rows.values().chain(pinned.slots.keys()) {
            self.ids.reserve(set.0);
        }
        self.pinned = pinned;
    }

    /// Where it works.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The node or the cluster around it changed. Rare, and then everything that it may concern is computed again.
    pub fn set_context(&mut self, context: Context) {
        if context == self.context {
            return;
        }
        let before = std::mem::replace(&mut self.context, context);
        let now = &self.context;
        let all = before.zone != now.zone || before.settings != now.settings || before.node != now.node;
        let moved: BTreeSet<IpAddr> = before
            .nodes
            .iter()
            .filter(|(ip, node)| now.nodes.get(*ip) != Some(node))
            .chain(now.nodes.iter().filter(|(ip, node)| before.nodes.get(*ip) != Some(node)))
            .map(|(ip, _)| *ip)
            .collect();
        let concerned = |owner: &Arc<Owner>, entry: &Entry| match **owner {
            Owner::Service(_) => all || entry.leads_to_any(&moved),
            Owner::Pod(_) => before.addresses != now.addresses,
        };
        let entries = self.entries.iter().filter(|(owner, entry)| concerned(owner, entry));
        let dirty = entries.map(|(owner, _)| Arc::clone(owner));
        self.dirty.extend(dirty);
    }

    /// A Service appeared or changed.
    pub fn upsert_service(&mut self, service: Service) {
        let owner = Arc::new(Owner::Service(service.name.clone()));
        self.set_subject(owner, Subject::Service(Box::new(service)));
    }

    /// A Service is gone.
    pub fn remove_service(&mut self, name: &NamespacedName) {
        self.set_subject(Arc::new(Owner::Service(name.clone())), Subject::None);
    }

    /// A pod with host ports appeared or changed.
    pub fn upsert_pod(&mut self, pod: HostPorts) {
        let owner = Arc::new(Owner::Pod(pod.name.clone()));
        self.set_subject(owner, Subject::Pod(Box::new(pod)));
    }

    /// A pod is gone, or has no host ports any more.
    pub fn remove_pod(&mut self, name: &NamespacedName) {
        self.set_subject(Arc::new(Owner::Pod(name.clone())), Subject::None);
    }

    /// A slice appeared or changed, perhaps its owner too.
    pub fn upsert_slice(&mut self, slice: Slice) {
        if self.slices.get(&slice.name).is_some_and(|owner| *owner.name() != slice.service) {
            self.remove_slice(&slice.name);
        }
        let owner = Arc::new(Owner::Service(slice.service.clone()));
        let owner = self.entries.get_key_value(&owner).map_or(owner, |(known, _)| Arc::clone(known));
        self.slices.insert(slice.name.clone(), Arc::clone(&owner));
        if self.entries.entry(Arc::clone(&owner)).or_default().put_slice(slice) {
            self.dirty.insert(owner);
        }
    }

    /// A slice is gone.
    pub fn remove_slice(&mut self, name: &NamespacedName) {
        let Some(owner) = self.slices.remove(name) else { return };
        if let Some(entry) = self.entries.get_mut(&owner) {
            entry.slices.retain(|slice| slice.name != *name);
            self.dirty.insert(owner);
        }
    }

    /// Names of all Services, for re-lists.
    pub fn services(&self) -> impl Iterator<Item = &NamespacedName> {
        self.entries.iter().filter_map(|(owner, entry)| entry.service().and(Some(owner.name())))
    }

    /// Names of all pods with host ports, for re-lists.
    pub fn pods(&self) -> impl Iterator<Item = &NamespacedName> {
        let pods = self.entries.iter().filter(|(_, entry)| matches!(entry.subject, Subject::Pod(_)));
        pods.map(|(owner, _)| owner.name())
    }

    /// Names of all slices, for re-lists.
    pub fn slices(&self) -> impl Iterator<Item = &NamespacedName> {
        self.slices.keys()
    }

    /// Current frontends.
    #[must_use]
    pub fn frontends(&self) -> &BTreeMap<FrontendKey, Frontend> {
        &self.frontends
    }

    /// Services whose load balancer asks this node.
    #[must_use]
    pub fn health_checks(&self) -> &BTreeMap<NamespacedName, HealthCheck> {
        &self.health
    }

    /// What is refused now, by whose it is.
    pub fn problems(&self) -> impl Iterator<Item = (&Owner, &Problem)> {
        self.entries
            .iter()
            .flat_map(|(owner, entry)| entry.problems.iter().map(move |problem| (owner.as_ref(), problem)))
    }

    /// The Service of that name.
    #[must_use]
    pub fn service(&self, name: &NamespacedName) -> Option<&Service> {
        self.entries.get(&Owner::Service(name.clone())).and_then(|entry| entry.service())
    }

    /// The node that a Service's endpoint of this address runs on, as far as its slices say.
    #[must_use]
    pub fn node_of(&self, owner: &Owner, address: IpAddr) -> Option<&str> {
        if matches!(owner, Owner::Pod(_)) {
            return Some(&self.context.node);
        }
        let endpoints = self.entries.get(owner)?.slices.iter().flat_map(|slice| &slice.endpoints);
        endpoints.filter(|endpoint| endpoint.address == address).find_map(|endpoint| endpoint.node.as_deref())
    }

    /// Recomputes what the events since the last call touch.
    pub fn refresh(&mut self) -> Changes {
        self.refresh_some(usize::MAX)
    }

    /// As [`LoadBalancer::refresh`], for about so many objects; the rest is done by the next calls.
    pub fn refresh_some(&mut self, limit: usize) -> Changes {
        let mut changes = Changes::default();
        let mut done = 0;
        // Ends, for an address only ever moves to an older object. The oldest come first: nobody claims an address, or
        // the number of its set, that an object of the same round is entitled to.
        while !self.dirty.is_empty() && done < limit {
            let age = |owner: &Arc<Owner>| self.entries.get(owner).map_or(i64::MAX, |entry| entry.created());
            let mut round: Vec<(i64, Arc<Owner>)> =
                std::mem::take(&mut self.dirty).into_iter().map(|owner| (age(&owner), owner)).collect();
            round.sort();
            let rest = round.split_off(round.len().min(limit - done));
            self.dirty.extend(rest.into_iter().map(|(_, owner)| owner));
            done += round.len();
            for (_, owner) in round {
                self.bring(&owner, &mut changes);
            }
        }
        changes
    }

    /// Whether something is left to be recomputed.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Says that everything was listed in full: adopted numbers that nobody uses become free. Gives back whom the sets
    /// of those numbers led to.
    pub fn settle(&mut self) -> BTreeSet<Lost> {
        if std::mem::replace(&mut self.settled, true) {
            return BTreeSet::new();
        }
        let entries = self.entries.values();
        let used: BTreeSet<u32> = entries.flat_map(|entry| &entry.sets).map(|set| set.id.0).collect();
        self.ids.retain(|number| used.contains(number));
        self.taken_over = BTreeSet::new();
        let left = std::mem::take(&mut self.pinned).slots.into_iter();
        left.flat_map(|(set, backends)| {
            backends.into_iter().map(move |backend| Lost { set, backend, is_dead: false })
        })
        .collect()
    }

    fn set_subject(&mut self, owner: Arc<Owner>, subject: Subject) {
        if matches!(subject, Subject::None) && !self.entries.contains_key(&owner) {
            return;
        }
        let entry = self.entries.entry(Arc::clone(&owner)).or_default();
        if entry.subject != subject {
            entry.subject = subject;
            self.dirty.insert(owner);
        }
    }

    /// Brings one object's rows and sets to what they should be.
    fn bring(&mut self, owner: &Arc<Owner>, changes: &mut Changes) {
        let Some((owner, mut entry)) = self.entries.remove_entry(owner) else { return };
        let owner = &owner;
        let Plan { sets, rows, mut problems, health } = entry.plan(&self.context);
        if let Owner::Service(name) = &**owner {
            changes
                .name(name, entry.service().and_then(|service| names::target(service, entry.slices.iter())));
            let before = self.health.get(name).copied();
            changes.health |= before != health;
            match health {
                Some(check) => drop(self.health.insert(name.clone(), check)),
                None => drop(self.health.remove(name)),
            }
        }
        let rows = self.claim(owner, &mut entry, rows, &mut problems);
        let before = std::mem::take(&mut entry.sets);
        entry.sets = self.number(sets, &rows, &before, &mut problems, changes);
        self.write_rows(owner, &mut entry, rows, changes);
        self.compare_sets(&before, &entry, changes);
        changes.report(owner, &entry.problems, &problems);
        entry.problems = problems;
        if entry.is_needed() {
            self.entries.insert(Arc::clone(owner), entry);
        }
    }

    /// Keeps the rows whose address this object may have: nobody has it, or somebody younger, who then loses it.
    fn claim(
        &mut self,
        owner: &Arc<Owner>,
        entry: &mut Entry,
        mut rows: BTreeMap<FrontendKey, WantedRow>,
        problems: &mut BTreeSet<Problem>,
    ) -> BTreeMap<FrontendKey, WantedRow> {
        let mut waits = Vec::new();
        let addresses: BTreeSet<FrontendAddress> = rows.keys().map(|key| key.address).collect();
        for address in addresses {
            let Some(holder) = self.holder(address).filter(|holder| *holder != *owner) else { continue };
            let theirs = self.entries.get(&holder).map_or(i64::MIN, |entry| entry.created());
            if (entry.created(), owner) < (theirs, &holder) {
                // What it has lost goes when it is computed again, for the row is this object's by then.
                self.dirty.insert(holder);
            } else {
                rows.retain(|key, _| key.address != address);
                problems.insert(Problem::Conflict { address, holder: (*holder).clone() });
                waits.push(address);
            }
        }
        for address in entry.waits.iter().filter(|address| !waits.contains(address)) {
            if let Some(others) = self.waiting.get_mut(address) {
                others.remove(owner);
                if others.is_empty() {
                    self.waiting.remove(address);
                }
            }
        }
        for address in &waits {
            self.waiting.entry(*address).or_default().insert(Arc::clone(owner));
        }
        entry.waits = waits;
        rows
    }

    fn holder(&self, address: FrontendAddress) -> Option<Arc<Owner>> {
        let key = FrontendKey { address, scope: Scope::Inside };
        self.frontends.get(&key).map(|frontend| Arc::clone(&frontend.owner))
    }

    /// Gives numbers and slots to the sets.
    fn number(
        &mut self,
        wanted: BTreeMap<SetKey, WantedSet>,
        rows: &BTreeMap<FrontendKey, WantedRow>,
        before: &[NumberedSet],
        problems: &mut BTreeSet<Problem>,
        changes: &mut Changes,
    ) -> Vec<NumberedSet> {
        let mut sets = Vec::with_capacity(wanted.len());
        // A set without rows lost them all to older objects.
        for (key, wanted) in wanted.into_iter().filter(|(key, _)| rows.values().any(|row| row.set == *key)) {
            let known = before.iter().find(|set| set.key == key);
            let number = known.map(|set| set.id).or_else(|| self.adopted(&key, rows));
            let Some(id) = number.or_else(|| self.ids.take().map(SetId)) else {
                problems.insert(Problem::Exhausted);
                continue;
            };
            let adopted = if known.is_none() { self.pinned.slots.remove(&id) } else { None };
            let slots = known.map(|set| &*set.set.backends).or(adopted.as_deref()).unwrap_or_default();
            let set = self.fill(known, slots, &wanted);
            let left = slots.iter().chain(known.iter().flat_map(|known| &known.lingering));
            let (lingering, dead): (Vec<Backend>, Vec<Backend>) = left
                .filter(|backend| !wanted.backends.contains(backend))
                .partition(|backend| wanted.usable.contains(backend));
            changes.lose(id, dead.iter(), true);
            sets.push(NumberedSet { key, id, set, lingering });
        }
        sets
    }

    /// The set as it should be; what is as it was is shared with it.
    fn fill(&self, known: Option<&NumberedSet>, slots: &[Backend], wanted: &WantedSet) -> Set {
        let has_table = wanted.maglev && !wanted.backends.is_empty();
        let maglev = self.context.settings.maglev.filter(|_| has_table);
        let backends = known.filter(|set| set.holds(&wanted.backends)).map_or_else(
            || slots::place(slots, &wanted.backends).into(),
            |set| Arc::clone(&set.set.backends),
        );
        let sources = known
            .filter(|set| *set.set.sources == *wanted.sources)
            .map_or_else(|| self.ranges(&wanted.sources), |set| Arc::clone(&set.set.sources));
        let maglev = maglev.map_or(0, |size| maglev::size_for(size, wanted.backends.len()));
        Set { backends, maglev, sources }
    }

    fn ranges(&self, ranges: &[IpCidr]) -> Arc<[IpCidr]> {
        if ranges.is_empty() { Arc::clone(&self.anybody) } else { ranges.into() }
    }

    /// The number that an earlier process gave to the set, unless another set has taken it over.
    fn adopted(&mut self, set: &SetKey, rows: &BTreeMap<FrontendKey, WantedRow>) -> Option<SetId> {
        let of_set = rows.iter().filter(|(_, row)| row.set == *set);
        let mut pinned = of_set.filter_map(|(key, _)| self.pinned.rows.get(key).copied());
        let id = pinned.find(|id| !self.taken_over.contains(id))?;
        self.taken_over.insert(id);
        Some(id)
    }

    fn write_rows(
        &mut self,
        owner: &Arc<Owner>,
        entry: &mut Entry,
        rows: BTreeMap<FrontendKey, WantedRow>,
        changes: &mut Changes,
    ) {
        let before = std::mem::take(&mut entry.rows);
        entry.rows.reserve_exact(rows.len());
        for key in before.into_iter().filter(|key| !rows.contains_key(key)) {
            if self.frontends.get(&key).is_some_and(|frontend| frontend.owner == *owner) {
                self.frontends.remove(&key);
                changes.remove_frontend(key);
            }
            if let Some(others) = self.waiting.get(&key.address) {
                self.dirty.extend(others.iter().filter(|other| *other != owner).cloned());
            }
        }
        for (key, row) in rows {
            let Some(set) = entry.sets.iter().find(|set| set.key == row.set) else { continue };
            let next = Frontend {
                set: set.id,
                kind: row.kind,
                owner: Arc::clone(owner),
                port_name: Arc::clone(&row.set.port),
                flags: row.flags,
                affinity_seconds: row.affinity_seconds,
                backends: Arc::clone(&set.set.backends),
                maglev: set.set.maglev,
            };
            entry.rows.push(key);
            if self.frontends.get(&key) != Some(&next) {
                changes.put_frontend(key, next.clone());
                self.frontends.insert(key, next);
            }
        }
        let created = entry.created();
        if std::mem::replace(&mut entry.claimed_at, created) != created {
            // Made anew under its old name: whoever waits may be older now.
            for key in &entry.rows {
                let others = self.waiting.get(&key.address).into_iter().flatten();
                self.dirty.extend(others.filter(|other| *other != owner).cloned());
            }
        }
    }

    fn compare_sets(&mut self, before: &[NumberedSet], entry: &Entry, changes: &mut Changes) {
        for set in &entry.sets {
            let known = before.iter().find(|known| known.id == set.id);
            if known.is_none_or(|known| known.set != set.set) {
                changes.put_set(set.id, set.set.clone());
            }
        }
        for known in before.iter().filter(|known| !entry.sets.iter().any(|set| set.id == known.id)) {
            self.ids.release(known.id.0);
            changes.remove_set(known.id);
            changes.lose(known.id, known.set.backends.iter().chain(&known.lingering), false);
        }
    }
}
