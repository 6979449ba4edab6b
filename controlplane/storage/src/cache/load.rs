//! Filling a new cache: the store's snapshot, and the history that led to it as far as the store keeps it, so
//! that watches and continue tokens survive a restart.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::CacheConfig;
use super::event::Event;
use super::state::State;
use crate::{
    AttributesFn, Entry, EventKind, History, Key, Object, Revision, Storage, StorageError, TailError,
};

pub(super) async fn load(
    storage: &dyn Storage,
    attributes_of: AttributesFn,
    config: &CacheConfig,
) -> Result<State, StorageError> {
    let snapshot = storage.scan().await?;
    let through = snapshot.revision;
    let (floor, history) = history(storage, through, config.reload).await?;
    let mut state = State::new(through, attributes_of, config.clone());
    state.reset(snapshot);
    let events = replay(&mut state, history);
    state.remember(floor, events, Instant::now());
    Ok(state)
}

/// The last `reload` revisions up to `through`, or as many as there are.
async fn history(
    storage: &dyn Storage,
    through: Revision,
    reload: u64,
) -> Result<(Revision, Vec<History>), StorageError> {
    let mut floor = Revision(through.0.saturating_sub(reload).max(1));
    loop {
        match storage.history(floor, through).await {
            Ok(history) => return Ok((floor, history)),
            Err(TailError::Compacted { oldest }) if oldest > floor && oldest < through => floor = oldest,
            Err(TailError::Compacted { .. }) => return Ok((through, Vec::new())),
            Err(TailError::Storage(error)) => return Err(error),
        }
    }
}

/// Past changes as events. Each state is built once and shared by the events around it and the current objects.
fn replay(state: &mut State, history: Vec<History>) -> Vec<Arc<Event>> {
    let mut latest: HashMap<Key, Arc<Object>> = HashMap::new();
    let mut events = Vec::with_capacity(history.len());
    for past in history {
        let known = latest.remove(&past.change.key);
        let previous = past.previous.map(|entry| match known {
            Some(object) if object.revision() == entry.revision => object,
            _ => state.entry_object(&entry, EventKind::Added),
        });
        let (object, kind) = match (past.change.value, &previous) {
            (Some(value), previous) => {
                let kind = if previous.is_some() { EventKind::Modified } else { EventKind::Added };
                let entry = Entry { key: past.change.key.clone(), value, revision: past.revision };
                let object = state.entry_object(&entry, kind);
                latest.insert(past.change.key, Arc::clone(&object));
                (object, kind)
            }
            (None, Some(previous)) => (Arc::new(previous.deleted(past.revision)), EventKind::Deleted),
            (None, None) => continue,
        };
        events.push(Arc::new(Event::new(object, previous, kind)));
    }
    for object in latest.into_values() {
        let current = state.get(object.key()).is_some_and(|current| current.revision() == object.revision());
        if current {
            state.place(object);
        }
    }
    events
}
