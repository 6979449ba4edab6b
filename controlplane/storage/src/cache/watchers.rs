//! Who watches what, and the bounded queue to each watcher.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::{Event, WatchItem};
use crate::{ResourceId, Revision};

/// A stream of the changes of a resource. Ends when it lags too far behind or the cache starts over.
#[derive(Debug)]
pub struct Watcher {
    replay: VecDeque<Arc<Event>>,
    live: mpsc::Receiver<WatchItem>,
}

impl Watcher {
    /// The next item; `None` when the watch has ended.
    pub async fn next(&mut self) -> Option<WatchItem> {
        match self.replay.pop_front() {
            Some(event) => Some(WatchItem::Event(event)),
            None => self.live.recv().await,
        }
    }

    /// The next item if one is waiting.
    pub fn try_next(&mut self) -> Option<WatchItem> {
        match self.replay.pop_front() {
            Some(event) => Some(WatchItem::Event(event)),
            None => self.live.try_recv().ok(),
        }
    }
}

impl Stream for Watcher {
    type Item = WatchItem;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<WatchItem>> {
        match self.replay.pop_front() {
            Some(event) => Poll::Ready(Some(WatchItem::Event(event))),
            None => self.live.poll_recv(context),
        }
    }
}

/// All watchers by resource and namespace.
#[derive(Default)]
pub(super) struct Watchers {
    resources: HashMap<ResourceId, Topic>,
}

type Queue = mpsc::Sender<WatchItem>;

#[derive(Default)]
struct Topic {
    everywhere: Vec<Queue>,
    namespaces: HashMap<Arc<str>, Vec<Queue>>,
}

impl Watchers {
    pub(super) fn add(
        &mut self,
        resource: &ResourceId,
        namespace: Option<&str>,
        replay: VecDeque<Arc<Event>>,
        queue: usize,
    ) -> Watcher {
        let (sender, live) = mpsc::channel(queue.max(1));
        let topic = self.resources.entry(resource.clone()).or_default();
        match namespace {
            Some(namespace) => topic.namespaces.entry(namespace.into()).or_default().push(sender),
            None => topic.everywhere.push(sender),
        }
        Watcher { replay, live }
    }

    /// Sends an event to those who watch its resource and namespace.
    pub(super) fn dispatch(&mut self, event: &Arc<Event>) {
        let key = event.object.key();
        let Some(topic) = self.resources.get_mut(key.resource()) else { return };
        let send = |queue: &Queue| delivers(queue, WatchItem::Event(Arc::clone(event)));
        topic.everywhere.retain(send);
        if let Some(queues) = key.namespace().and_then(|namespace| topic.namespaces.get_mut(namespace)) {
            queues.retain(send);
        }
    }

    /// Tells everybody the current revision, and drops the queues of those who left.
    pub(super) fn bookmark(&mut self, revision: Revision) {
        // A full queue has events enough to go on from; only those who left are dropped here.
        let keep = |queue: &Queue| match queue.try_send(WatchItem::Bookmark(revision)) {
            Ok(()) | Err(TrySendError::Full(_)) => true,
            Err(TrySendError::Closed(_)) => false,
        };
        self.resources.retain(|_, topic| {
            topic.everywhere.retain(keep);
            topic.namespaces.retain(|_, queues| {
                queues.retain(keep);
                !queues.is_empty()
            });
            !(topic.everywhere.is_empty() && topic.namespaces.is_empty())
        });
    }

    /// Ends every watch.
    pub(super) fn end_all(&mut self) {
        self.resources.clear();
    }
}

/// Whether the item went into the queue; a watcher that is full or gone is given up.
fn delivers(queue: &Queue, item: WatchItem) -> bool {
    queue.try_send(item).is_ok()
}
