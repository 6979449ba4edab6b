//! What a refresh changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use skep_model::{Backend, DnsChange, DnsTarget, NamespacedName, SetId};

use crate::{
    frontend::{Frontend, FrontendKey, Owner, Set},
    problem::Problem,
};

/// A backend whose flows through a set are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lost {
    /// The set.
    pub set: SetId,
    /// The backend.
    pub backend: Backend,
    /// Whether nothing answers there any more, as far as the Service's slices say; else it is the set that is gone.
    pub is_dead: bool,
}

/// Something refused that was not refused before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whose it is.
    pub owner: Arc<Owner>,
    /// What is refused.
    pub problem: Problem,
}

/// What changed since the last refresh. No key is in the written and the removed part of a table at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New or different sets.
    pub sets: BTreeMap<SetId, Set>,
    /// Sets that are gone.
    pub removed_sets: BTreeSet<SetId>,
    /// New or different frontends; with a set that changed come all of its rows that this concerns.
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    /// Frontends that are gone.
    pub removed_frontends: BTreeSet<FrontendKey>,
    /// What DNS answers for the Services that were looked at, changed or not.
    pub names: DnsChange,
    /// Backends that left their set and do not answer any more.
    pub lost: BTreeSet<Lost>,
    /// What is refused, and was not before.
    pub reports: Vec<Report>,
    /// Whether health checks differ.
    pub health: bool,
}

impl Changes {
    /// Whether nothing of the data path changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
            && self.removed_sets.is_empty()
            && self.frontends.is_empty()
            && self.removed_frontends.is_empty()
    }

    pub(super) fn put_set(&mut self, id: SetId, set: Set) {
        self.removed_sets.remove(&id);
        self.sets.insert(id, set);
    }

    pub(super) fn remove_set(&mut self, id: SetId) {
        self.sets.remove(&id);
        self.removed_sets.insert(id);
    }

    pub(super) fn put_frontend(&mut self, key: FrontendKey, frontend: Frontend) {
        self.removed_frontends.remove(&key);
        self.frontends.insert(key, frontend);
    }

    pub(super) fn remove_frontend(&mut self, key: FrontendKey) {
        self.frontends.remove(&key);
        self.removed_frontends.insert(key);
    }

    pub(super) fn lose<'a>(
        &mut self,
        set: SetId,
        backends: impl Iterator<Item = &'a Backend>,
        is_dead: bool,
    ) {
        self.lost.extend(backends.map(|backend| Lost { set, backend: *backend, is_dead }));
    }

    pub(super) fn name(&mut self, name: &NamespacedName, target: Option<DnsTarget>) {
        match target {
            Some(target) => {
                self.names.removed_services.remove(name);
                self.names.services.insert(name.clone(), target);
            }
            None => {
                self.names.services.remove(name);
                self.names.removed_services.insert(name.clone());
            }
        }
    }

    pub(super) fn report(&mut self, owner: &Arc<Owner>, before: &BTreeSet<Problem>, now: &BTreeSet<Problem>) {
        let new = now.difference(before).cloned();
        self.reports.extend(new.map(|problem| Report { owner: Arc::clone(owner), problem }));
    }
}
