//! Live batches from a store's writer to its tails, in order, through bounded queues.

use std::sync::Arc;

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{Batch, Revision, Tail};

/// Batches a tail may lag behind before it is cut off; it then tails again from the log.
const QUEUE: usize = 4096;

/// The writer's side: what was published last, and to whom.
#[derive(Debug)]
pub(crate) struct Feed {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    published: Revision,
    tails: Vec<mpsc::Sender<Arc<Batch>>>,
}

impl Feed {
    pub(crate) fn new(published: Revision) -> Self {
        Self { inner: Mutex::new(Inner { published, tails: Vec::new() }) }
    }

    /// The revision of the last published batch.
    pub(crate) fn published(&self) -> Revision {
        self.inner.lock().published
    }

    /// Everything after the returned revision will come out of the receiver, until it lags or the feed closes.
    pub(crate) fn subscribe(&self) -> (Revision, mpsc::Receiver<Arc<Batch>>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut inner = self.inner.lock();
        inner.tails.push(sender);
        (inner.published, receiver)
    }

    /// Hands finished batches to every tail; cuts off those that are full or gone.
    pub(crate) fn publish(&self, batches: Vec<Batch>) {
        let mut inner = self.inner.lock();
        for batch in batches {
            inner.published = batch.revision;
            let batch = Arc::new(batch);
            inner.tails.retain(|tail| tail.try_send(Arc::clone(&batch)).is_ok());
        }
    }

    /// Ends every tail.
    pub(crate) fn close(&self) {
        self.inner.lock().tails.clear();
    }
}

/// Past batches, then live ones, all of them after `after`.
pub(crate) fn tail(after: Revision, past: Vec<Arc<Batch>>, live: mpsc::Receiver<Arc<Batch>>) -> Tail {
    let all = stream::iter(past).chain(ReceiverStream::new(live));
    all.filter(move |batch| std::future::ready(batch.revision > after)).map(Ok).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(revision: u64) -> Batch {
        Batch { revision: Revision(revision), changes: Vec::new() }
    }

    #[tokio::test]
    async fn a_tail_that_lags_is_cut_off_not_buffered_without_end() {
        let feed = Feed::new(Revision(1));
        let (after, mut tail) = feed.subscribe();
        assert_eq!(after, Revision(1));
        feed.publish((2..QUEUE as u64 + 10).map(batch).collect());
        let mut last = after;
        while let Some(batch) = tail.recv().await {
            assert_eq!(batch.revision, last.next());
            last = batch.revision;
        }
        assert_eq!(last, Revision(QUEUE as u64 + 1), "what was queued arrives, then the stream ends");
    }
}
