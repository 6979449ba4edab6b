//! `watch`: a stream of events. Frames are encoded once by the store and shared; only tables, metadata watches and
//! converted versions are encoded here.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::Stream;
use http::StatusCode;
use serde_json::{Value, json};
use skep_registry::Resource;
use skep_storage::{Event, EventKind, Expired, Object, Revision, WatchItem, Watcher};
use tokio::time::Instant;

use crate::context::Context;
use crate::list_options::{Freshness, ListOptions};
use crate::media::{MetaVersion, Shape};
use crate::respond::{self, HttpResponse};
use crate::rest::{Target, read};
use crate::shape::{self, Include};
use crate::state::State;
use crate::status::{ApiError, ApiResult};
use crate::store;

/// Watches end between this and twice this, so that clients do not come back all at once.
const MIN_TIMEOUT_SECONDS: u64 = 1800;

/// Answers `watch`.
pub async fn watch(state: &State, context: &Context, target: &Target) -> ApiResult<HttpResponse> {
    let options = ListOptions::read(context, &target.resource, true)?;
    let include = Include::read(context)?;
    let start = begin(state, target, &options).await;
    let encoder = Encoder {
        resource: Arc::clone(&target.resource),
        shape: context.accept.shape,
        include,
        headed: false,
    };
    let feed = match start {
        Ok((initial, watcher)) => {
            let seconds = options
                .timeout_seconds
                .unwrap_or_else(|| MIN_TIMEOUT_SECONDS + rand::random_range(0..MIN_TIMEOUT_SECONDS));
            let deadline = Instant::now() + Duration::from_secs(seconds);
            Feed {
                pending: initial,
                watcher: Some(watcher),
                options,
                encoder,
                deadline,
                drain: state.drain.clone(),
            }
        }
        Err(Start::Expired(expired)) => Feed::gone(&expired, options, encoder, state),
        Err(Start::Refused(error)) => return Err(error),
    };
    Ok(respond::bytes(StatusCode::OK, "application/json", Body::from_stream(feed.into_stream())))
}

enum Start {
    Expired(Expired),
    Refused(ApiError),
}

impl From<ApiError> for Start {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

/// What a stream still has to send.
enum Pending {
    Object(EventKind, Arc<Object>),
    InitialEnd(Revision),
    Frame(Bytes),
}

async fn begin(
    state: &State,
    target: &Target,
    options: &ListOptions,
) -> Result<(VecDeque<Pending>, Watcher), Start> {
    let id = store::resource_id(&target.resource)?;
    let namespace = target.namespace.as_deref();
    let cache = state.store.cache();
    let replays = match (options.initial_events, options.freshness) {
        (Some(wanted), _) => wanted,
        (None, Freshness::Newest | Freshness::Any) => true,
        (None, _) => false,
    };
    let from = match options.freshness {
        Freshness::NotOlderThan(revision) | Freshness::Exact(revision) => {
            read::catch_up(&state.store, revision).await?;
            revision
        }
        Freshness::Newest | Freshness::Any => cache.revision(),
    };
    if !replays {
        let from = if options.initial_events == Some(false) && options.freshness == Freshness::Newest {
            cache.revision()
        } else {
            from
        };
        let watcher = cache.watch(&id, namespace, from).map_err(Start::Expired)?;
        return Ok((VecDeque::new(), watcher));
    }
    let page = cache.list(&id, namespace, None, None, None).map_err(Start::Expired)?;
    let watcher = cache.watch(&id, namespace, page.revision).map_err(Start::Expired)?;
    let mut initial: VecDeque<Pending> = page
        .objects
        .into_iter()
        .filter(|object| options.matches(object))
        .map(|object| Pending::Object(EventKind::Added, object))
        .collect();
    if options.initial_events == Some(true) {
        initial.push_back(Pending::InitialEnd(page.revision));
    }
    Ok((initial, watcher))
}

struct Feed {
    pending: VecDeque<Pending>,
    watcher: Option<Watcher>,
    options: ListOptions,
    encoder: Encoder,
    deadline: Instant,
    drain: tokio_util::sync::CancellationToken,
}

impl Feed {
    fn gone(expired: &Expired, options: ListOptions, encoder: Encoder, state: &State) -> Self {
        let error = ApiError::expired(format!(
            "too old resource version: {} ({})",
            expired.requested, expired.oldest
        ));
        let frame = Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": error.to_value()})));
        let pending = VecDeque::from([Pending::Frame(frame)]);
        Self {
            pending,
            watcher: None,
            options,
            encoder,
            deadline: Instant::now(),
            drain: state.drain.clone(),
        }
    }

    fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        futures::stream::unfold(self, |mut feed| async move {
            let frame = feed.next_frame().await?;
            Some((Ok(frame), feed))
        })
    }

    /// The next frame; `None` ends the stream.
    async fn next_frame(&mut self) -> Option<Bytes> {
        loop {
            if let Some(pending) = self.pending.pop_front() {
                return Some(match pending {
                    Pending::Object(kind, object) => self.encoder.frame(kind, &object),
                    Pending::InitialEnd(revision) => self.encoder.bookmark(revision, true),
                    Pending::Frame(frame) => frame,
                });
            }
            let watcher = self.watcher.as_mut()?;
            let item = tokio::select! {
                item = watcher.next() => item?,
                () = tokio::time::sleep_until(self.deadline) => return None,
                () = self.drain.cancelled() => return None,
            };
            match item {
                WatchItem::Event(event) => {
                    if let Some((kind, object)) = select(&self.options, &event) {
                        return Some(self.encoder.frame(kind, &object));
                    }
                }
                WatchItem::Bookmark(revision) if self.options.bookmarks => {
                    return Some(self.encoder.bookmark(revision, false));
                }
                WatchItem::Bookmark(_) => {}
            }
        }
    }
}

/// What an event is to a watcher with selectors: entering and leaving the selection become ADDED and DELETED.
fn select(options: &ListOptions, event: &Event) -> Option<(EventKind, Arc<Object>)> {
    if options.selects_all() {
        return Some((event.kind, Arc::clone(&event.object)));
    }
    let before = event.previous.as_ref().is_some_and(|object| options.matches(object));
    let after = event.kind != EventKind::Deleted && options.matches(&event.object);
    match (before, after) {
        (false, false) => None,
        (true, true) => Some((event.kind, Arc::clone(&event.object))),
        (false, true) => Some((EventKind::Added, Arc::clone(&event.object))),
        (true, false) => event.last_state().map(|last| (EventKind::Deleted, last)),
    }
}

/// Encodes events in the shape asked for.
struct Encoder {
    resource: Arc<Resource>,
    shape: Shape,
    include: Include,
    headed: bool,
}

impl Encoder {
    fn frame(&mut self, kind: EventKind, object: &Object) -> Bytes {
        if self.shape == Shape::Object && !self.resource.converts() {
            return object.watch_frame(kind);
        }
        let shaped = store::served(&self.resource, object).map(|value| self.shaped(value));
        let (kind, shaped) = match shaped {
            Ok(value) => (kind.as_str(), value),
            Err(error) => ("ERROR", error.to_value()),
        };
        line(kind, &shaped)
    }

    fn shaped(&mut self, object: Value) -> Value {
        match self.shape {
            Shape::Object => object,
            Shape::Partial(version) => shape::partial(&object, version),
            Shape::Table(version) => self.table(version, object),
        }
    }

    fn table(&mut self, version: MetaVersion, object: Value) -> Value {
        let header = !std::mem::replace(&mut self.headed, true);
        let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
        shape::table(&self.resource, version, self.include, header, metadata, std::iter::once(object))
    }

    fn bookmark(&mut self, revision: Revision, initial_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let (kind, version) = match self.shape {
            Shape::Object => (&*self.resource.kind, self.resource.api_version()),
            Shape::Partial(version) => ("PartialObjectMetadata", version.api_version().to_owned()),
            Shape::Table(version) => ("Table", version.api_version().to_owned()),
        };
        line("BOOKMARK", &json!({"kind": kind, "apiVersion": version, "metadata": metadata}))
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n"))
}
