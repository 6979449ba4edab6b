//! etcd watches as tails and history.
//!
//! Events of one transaction share a revision, arrive together and end with the head key's event. Whether a
//! revision has been compacted is only said by the watch itself, in its first answer; there is always one to wait
//! for, because a watch that begins before the head has events to bring.

use std::sync::Arc;

use etcd_client::{Event, EventType, WatchOptions, WatchResponse, WatchStream};
use futures::{StreamExt, stream};

use super::{EtcdStorage, HEAD, OBJECTS, answer, decode, etcd};
use crate::{Batch, Change, History, Offset, Revision, StorageError, Tail, TailError};

/// Everything of ours.
const ALL: &str = "/skep/";

/// A watch that has begun, and the first answer if that had to be waited for.
struct Begun {
    stream: WatchStream,
    first: Option<WatchResponse>,
}

pub(super) async fn tail(storage: &EtcdStorage, after: Revision) -> Result<Tail, TailError> {
    let begun = begin(storage, after, WatchOptions::new()).await?;
    let offset = storage.offset;
    let first = begun.first.map(|response| batches(offset, &response)).unwrap_or_default();
    let live = begun.stream.flat_map(move |response| {
        let items = match response {
            Ok(response) if response.canceled() => vec![Err(ended(&response))],
            Ok(response) => batches(offset, &response),
            Err(error) => vec![Err(etcd("watching")(error))],
        };
        stream::iter(items)
    });
    Ok(stream::iter(first).chain(live).boxed())
}

pub(super) async fn history(
    storage: &EtcdStorage,
    after: Revision,
    through: Revision,
) -> Result<Vec<History>, TailError> {
    if through <= after {
        return Ok(Vec::new());
    }
    let mut begun = begin(storage, after, WatchOptions::new().with_prev_key()).await?;
    let last = storage.served(storage.head().await?.0).min(through);
    let mut history = Vec::new();
    let mut reached = after;
    let mut next = begun.first.take();
    while reached < last {
        let response = match next.take() {
            Some(response) => response,
            None => answer("reading history", begun.stream.message())
                .await?
                .ok_or_else(|| StorageError::Stopped { reason: "etcd ended a watch".to_owned() })?,
        };
        if response.canceled() {
            return Err(ended(&response).into());
        }
        for event in response.events() {
            let revision = revision(storage.offset, event);
            reached = reached.max(revision);
            if let Some(change) = change(event)?.filter(|_| revision <= through) {
                let previous = event.prev_kv().map(|kv| storage.entry(kv)).transpose()?;
                history.push(History { revision, change, previous });
            }
        }
    }
    Ok(history)
}

async fn begin(storage: &EtcdStorage, after: Revision, options: WatchOptions) -> Result<Begun, TailError> {
    let (head, now) = storage.head().await?;
    let own = storage.own(after);
    if own == 0 {
        return Err(TailError::Compacted { oldest: storage.served(1) });
    }
    // Nothing of ours lies between the head and etcd's present revision.
    let behind = own < head;
    let start = if behind { own + 1 } else { own.max(now) + 1 };
    let options = options.with_prefix().with_start_revision(start);
    let mut stream = answer("watching", storage.watches().watch(ALL, Some(options))).await?;
    let mut first = None;
    while behind && first.is_none() {
        let response = answer("watching", stream.message()).await?;
        let response =
            response.ok_or_else(|| StorageError::Stopped { reason: "etcd ended a watch".to_owned() })?;
        if response.compact_revision() > 0 {
            let oldest = storage.served(response.compact_revision().min(head));
            return Err(TailError::Compacted { oldest });
        }
        if response.canceled() {
            return Err(ended(&response).into());
        }
        first = Some(response).filter(|response| !response.events().is_empty());
    }
    Ok(Begun { stream, first })
}

fn ended(response: &WatchResponse) -> StorageError {
    StorageError::Stopped { reason: format!("etcd ended a watch: {}", response.cancel_reason()) }
}

fn revision(offset: Offset, event: &Event) -> Revision {
    let own = event.kv().map_or(0, etcd_client::KeyValue::mod_revision);
    offset.served(u64::try_from(own).unwrap_or(0))
}

/// The change of an object; `None` for our own keys.
fn change(event: &Event) -> Result<Option<Change>, StorageError> {
    let Some(kv) = event.kv().filter(|kv| kv.key().starts_with(OBJECTS.as_bytes())) else { return Ok(None) };
    let value = match event.event_type() {
        EventType::Put => Some(kv.value().to_vec().into()),
        EventType::Delete => None,
    };
    Ok(Some(Change { key: decode(kv.key())?, value }))
}

/// The finished transactions of an answer.
fn batches(offset: Offset, response: &WatchResponse) -> Vec<Result<Arc<Batch>, StorageError>> {
    let mut finished = Vec::new();
    let mut changes = Vec::new();
    for event in response.events() {
        if event.kv().is_some_and(|kv| kv.key() == HEAD.as_bytes()) {
            let changes = std::mem::take(&mut changes);
            finished.push(Ok(Arc::new(Batch { revision: revision(offset, event), changes })));
            continue;
        }
        match change(event) {
            Ok(change) => changes.extend(change),
            Err(error) => {
                finished.push(Err(error));
                return finished;
            }
        }
    }
    finished
}
