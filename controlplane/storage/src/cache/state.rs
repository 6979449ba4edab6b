//! The cache's state: current objects by resource and namespace, and the recent events of each resource. Pure;
//! time is a parameter.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::{CacheConfig, Event, Expired, Op, Page, list};
use crate::{AttributesFn, Batch, Change, Entry, EventKind, Key, Object, ResourceId, Revision, Snapshot};

/// All resources at one revision, with what led there.
pub(super) struct State {
    revision: Revision,
    /// The oldest revision of resources that have forgotten nothing since the state was loaded.
    floor: Revision,
    shelves: HashMap<ResourceId, Shelf>,
    attributes_of: AttributesFn,
    config: CacheConfig,
}

/// Objects of one namespace by name.
pub(super) type Names = BTreeMap<Arc<str>, Arc<Object>>;

/// One resource.
#[derive(Default)]
pub(super) struct Shelf {
    pub(super) namespaces: BTreeMap<Option<Arc<str>>, Names>,
    pub(super) history: VecDeque<Remembered>,
    count: usize,
    floor: Revision,
}

/// An event and when it was applied.
pub(super) struct Remembered {
    pub(super) event: Arc<Event>,
    at: Instant,
}

impl State {
    /// An empty state at `revision` that remembers nothing before it.
    pub(super) fn new(revision: Revision, attributes_of: AttributesFn, config: CacheConfig) -> Self {
        Self { revision, floor: revision, shelves: HashMap::new(), attributes_of, config }
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// Replaces everything by a snapshot, with no history.
    pub(super) fn reset(&mut self, snapshot: Snapshot) {
        self.shelves.clear();
        self.revision = snapshot.revision;
        self.floor = snapshot.revision;
        for entry in snapshot.entries {
            let object = self.object(entry.key, entry.revision, EventKind::Added, &entry.value);
            self.place(Arc::new(object));
        }
    }

    /// Puts an object among the current ones without an event; returns the one it replaced.
    pub(super) fn place(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        let floor = self.floor;
        let id = object.key().resource().clone();
        let shelf = self.shelves.entry(id).or_insert_with(|| Shelf::new(floor));
        shelf.insert(object)
    }

    /// Adds past events, oldest first, that lead to the current objects; the state then reaches back to `floor`.
    pub(super) fn remember(&mut self, floor: Revision, events: Vec<Arc<Event>>, now: Instant) {
        self.floor = floor;
        for shelf in self.shelves.values_mut() {
            shelf.floor = floor;
        }
        for event in events {
            let id = event.object.key().resource().clone();
            let shelf = self.shelves.entry(id).or_insert_with(|| Shelf::new(floor));
            shelf.remember(event, now, &self.config);
        }
    }

    /// Applies one transaction and returns its events.
    pub(super) fn apply(&mut self, batch: &Batch, now: Instant) -> Vec<Arc<Event>> {
        if batch.revision <= self.revision {
            return Vec::new();
        }
        self.revision = batch.revision;
        batch.changes.iter().filter_map(|change| self.change(change, batch.revision, now)).collect()
    }

    fn change(&mut self, change: &Change, revision: Revision, now: Instant) -> Option<Arc<Event>> {
        let floor = self.floor;
        let attributes_of = Arc::clone(&self.attributes_of);
        let shelf = shelf_mut(&mut self.shelves, change.key.resource(), floor);
        let event = match &change.value {
            Some(value) => {
                let previous = shelf.get(&change.key);
                let kind = if previous.is_some() { EventKind::Modified } else { EventKind::Added };
                let key = previous.as_ref().map_or_else(|| change.key.clone(), |object| object.key().clone());
                let object = Arc::new(Object::new(key, revision, kind, value, attributes_of));
                shelf.insert(Arc::clone(&object));
                Event::new(object, previous, kind)
            }
            None => {
                let previous = shelf.remove(&change.key)?;
                Event::new(Arc::new(previous.deleted(revision)), Some(previous), EventKind::Deleted)
            }
        };
        let event = Arc::new(event);
        shelf.remember(Arc::clone(&event), now, &self.config);
        Some(event)
    }

    /// Forgets events that have grown too old.
    pub(super) fn expire(&mut self, now: Instant) {
        for shelf in self.shelves.values_mut() {
            shelf.forget(now, &self.config);
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.shelves.get(key.resource())?.get(key)
    }

    pub(super) fn count(&self, resource: &ResourceId) -> usize {
        self.shelves.get(resource).map_or(0, |shelf| shelf.count)
    }

    /// See [`super::Cache::list`].
    pub(super) fn list(
        &self,
        resource: &ResourceId,
        namespace: Option<&str>,
        at: Option<Revision>,
        after: Option<&Key>,
        limit: Option<usize>,
    ) -> Result<Page, Expired> {
        let revision = at.unwrap_or(self.revision);
        self.check(resource, revision)?;
        Ok(self.shelves.get(resource).map_or_else(
            || Page { revision, objects: Vec::new(), remaining: 0 },
            |shelf| list::page(shelf, namespace, revision, after, limit),
        ))
    }

    /// The remembered events after `from`, oldest first.
    pub(super) fn replay(
        &self,
        resource: &ResourceId,
        namespace: Option<&str>,
        from: Revision,
    ) -> Result<VecDeque<Arc<Event>>, Expired> {
        self.check(resource, from)?;
        let Some(shelf) = self.shelves.get(resource) else { return Ok(VecDeque::new()) };
        let here = |event: &&Arc<Event>| namespace.is_none() || event.object.key().namespace() == namespace;
        Ok(shelf.since(from).filter(here).cloned().collect())
    }

    /// The object that `op`, committed at `revision`, made.
    pub(super) fn outcome(&self, op: &Op, revision: Revision) -> Option<Arc<Object>> {
        let happened = self.shelves.get(op.key().resource()).and_then(|shelf| shelf.find(op.key(), revision));
        match (happened, op) {
            (Some(event), _) => Some(Arc::clone(&event.object)),
            (None, Op::Delete { .. }) => None,
            // Already forgotten, in a very short window.
            (None, Op::Put { key, value, .. }) => {
                Some(Arc::new(self.object(key.clone(), revision, EventKind::Modified, value)))
            }
        }
    }

    /// Builds the object of an entry.
    pub(super) fn entry_object(&self, entry: &Entry, kind: EventKind) -> Arc<Object> {
        Arc::new(self.object(entry.key.clone(), entry.revision, kind, &entry.value))
    }

    fn object(&self, key: Key, revision: Revision, kind: EventKind, value: &[u8]) -> Object {
        Object::new(key, revision, kind, value, Arc::clone(&self.attributes_of))
    }

    fn check(&self, resource: &ResourceId, requested: Revision) -> Result<(), Expired> {
        let oldest = self.shelves.get(resource).map_or(self.floor, |shelf| shelf.floor);
        if requested < oldest || requested > self.revision {
            return Err(Expired { requested, oldest, newest: self.revision });
        }
        Ok(())
    }
}

fn shelf_mut<'a>(
    shelves: &'a mut HashMap<ResourceId, Shelf>,
    id: &ResourceId,
    floor: Revision,
) -> &'a mut Shelf {
    if !shelves.contains_key(id) {
        shelves.insert(id.clone(), Shelf::new(floor));
    }
    shelves.entry(id.clone()).or_default()
}

impl Shelf {
    fn new(floor: Revision) -> Self {
        Self { floor, ..Self::default() }
    }

    fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.namespaces.get(key.namespace_arc())?.get(key.name()).cloned()
    }

    fn insert(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        let (namespace, name) = (object.key().namespace_arc().clone(), object.key().name_arc().clone());
        let replaced = self.namespaces.entry(namespace).or_default().insert(name, object);
        self.count += usize::from(replaced.is_none());
        replaced
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<Object>> {
        let Slot::Occupied(mut names) = self.namespaces.entry(key.namespace_arc().clone()) else {
            return None;
        };
        let removed = names.get_mut().remove(key.name())?;
        if names.get().is_empty() {
            names.remove();
        }
        self.count -= 1;
        Some(removed)
    }

    fn remember(&mut self, event: Arc<Event>, now: Instant, config: &CacheConfig) {
        self.history.push_back(Remembered { event, at: now });
        self.forget(now, config);
    }

    fn forget(&mut self, now: Instant, config: &CacheConfig) {
        while let Some(oldest) = self.history.front() {
            let aged = now.saturating_duration_since(oldest.at) > config.max_age;
            let surplus = self.history.len() > config.max_events;
            let forget = surplus || (aged && self.history.len() > config.min_events);
            if !forget {
                return;
            }
            self.floor = oldest.event.revision;
            self.history.pop_front();
        }
    }

    /// Events after `revision`, oldest first.
    pub(super) fn since(&self, revision: Revision) -> impl Iterator<Item = &Arc<Event>> {
        let start = self.history.partition_point(|past| past.event.revision <= revision);
        self.history.range(start..).map(|past| &past.event)
    }

    fn find(&self, key: &Key, revision: Revision) -> Option<&Arc<Event>> {
        let start = self.history.partition_point(|past| past.event.revision < revision);
        let at = self.history.range(start..).map(|past| &past.event);
        at.take_while(|event| event.revision == revision).find(|event| event.object.key() == key)
    }
}
