//! What watchers receive.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::{EventKind, Object, Revision};

/// One change of one object, shared by all watchers.
#[derive(Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The new state; for a deletion the last state with the deletion's revision.
    pub object: Arc<Object>,
    /// The state before; `None` when the object was created.
    pub previous: Option<Arc<Object>>,
    /// When it happened.
    pub revision: Revision,
    last_state: OnceLock<Arc<Object>>,
}

impl Event {
    pub(super) fn new(object: Arc<Object>, previous: Option<Arc<Object>>, kind: EventKind) -> Self {
        let revision = object.revision();
        Self { kind, object, previous, revision, last_state: OnceLock::new() }
    }

    /// The watch line of this event, encoded once for all watchers.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        self.object.watch_frame(self.kind)
    }

    /// The state before this event, at this event's revision: what a watcher is sent as a deletion when the
    /// object leaves its selector. `None` when there was no state before.
    #[must_use]
    pub fn last_state(&self) -> Option<Arc<Object>> {
        if self.kind == EventKind::Deleted {
            return Some(Arc::clone(&self.object));
        }
        let previous = self.previous.as_ref()?;
        let last = || Arc::new(previous.deleted(self.revision));
        Some(Arc::clone(self.last_state.get_or_init(last)))
    }
}

/// One item of a watch.
#[derive(Clone, Debug)]
pub enum WatchItem {
    /// A change.
    Event(Arc<Event>),
    /// Every change up to this revision has been sent.
    Bookmark(Revision),
}
