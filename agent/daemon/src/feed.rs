//! The DNS feed to the proxy: a snapshot, then deltas, resumable while this process lives.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::Stream;
use skep_model::{DnsChange, DnsView};
use skep_wire::proxy::{
    DnsDelta, DnsPosition, DnsRequest, DnsSnapshot, DnsUpdate, dns_update::Change, feed_server::Feed,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// Deltas that are kept for a proxy that reconnects.
const LOG: usize = 512;

/// The view and its recent past.
#[derive(Clone, Debug)]
pub(crate) struct DnsFeed {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
    connections: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct State {
    instance: String,
    sequence: u64,
    view: DnsView,
    known: bool,
    log: VecDeque<Arc<DnsDelta>>,
}

impl DnsFeed {
    /// An empty feed; `instance` tells this process from earlier ones.
    pub(crate) fn new(instance: String) -> Self {
        let state =
            State { instance, sequence: 0, view: DnsView::default(), known: false, log: VecDeque::new() };
        DnsFeed {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::new(watch::Sender::new(0)),
            connections: Arc::default(),
        }
    }

    /// The view is complete: from now on proxies are told.
    pub(crate) fn complete(&self) {
        let mut state = self.lock();
        if !state.known {
            state.known = true;
            state.sequence += 1;
            self.changed.send_replace(state.sequence);
        }
    }

    /// The view may have changed: what is known already is left out.
    pub(crate) fn publish(&self, change: DnsChange) {
        let mut state = self.lock();
        let change = state.news(change);
        if change.is_empty() {
            return;
        }
        if !state.known {
            state.view.apply(change);
            return;
        }
        state.log.push_back(Arc::new(DnsDelta::from(&change)));
        if state.log.len() > LOG {
            state.log.pop_front();
        }
        state.view.apply(change);
        state.sequence += 1;
        self.changed.send_replace(state.sequence);
    }

    /// Whether a proxy is connected.
    pub(crate) fn is_followed(&self) -> bool {
        self.connections.load(Ordering::Relaxed) > 0
    }

    /// What a proxy at `at` needs next; `None` while there is no news.
    fn next(&self, at: Option<&DnsPosition>) -> Option<DnsUpdate> {
        let state = self.lock();
        if !state.known {
            return None;
        }
        let update = |sequence, change| DnsUpdate {
            position: Some(DnsPosition { instance: state.instance.clone(), sequence }),
            change: Some(change),
        };
        let behind = at
            .filter(|at| at.instance == state.instance)
            .and_then(|at| state.sequence.checked_sub(at.sequence));
        match behind.and_then(|behind| usize::try_from(behind).ok()) {
            Some(0) => None,
            Some(behind) if behind <= state.log.len() => {
                let delta = DnsDelta::clone(&state.log[state.log.len() - behind]);
                Some(update(state.sequence - behind as u64 + 1, Change::Delta(delta)))
            }
            _ => Some(update(state.sequence, Change::Snapshot(DnsSnapshot::from(&state.view)))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What of a change the view does not have yet.
    fn news(&self, mut change: DnsChange) -> DnsChange {
        let view = &self.view;
        change.services.retain(|name, target| view.services.get(name) != Some(target));
        change.removed_services.retain(|name| view.services.contains_key(name));
        change.namespaces.retain(|name| !view.namespaces.contains(name));
        change.removed_namespaces.retain(|name| view.namespaces.contains(name));
        change
    }
}

/// One connected proxy.
struct Follower {
    feed: DnsFeed,
    changed: watch::Receiver<u64>,
    at: Option<DnsPosition>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.feed.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[tonic::async_trait]
impl Feed for DnsFeed {
    type DnsStream = Pin<Box<dyn Stream<Item = Result<DnsUpdate, Status>> + Send>>;

    async fn dns(&self, request: Request<DnsRequest>) -> Result<Response<Self::DnsStream>, Status> {
        let request = request.into_inner();
        tracing::info!(
            version = request.proxy_version,
            resumes = request.resume.is_some(),
            "proxy connected"
        );
        self.connections.fetch_add(1, Ordering::Relaxed);
        let follower = Follower { feed: self.clone(), changed: self.changed.subscribe(), at: request.resume };
        let stream = futures::stream::unfold(follower, |mut follower| async move {
            loop {
                follower.changed.mark_unchanged();
                if let Some(update) = follower.feed.next(follower.at.as_ref()) {
                    follower.at.clone_from(&update.position);
                    return Some((Ok(update), follower));
                }
                if follower.changed.changed().await.is_err() {
                    return None;
                }
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use skep_model::{DnsTarget, NamespacedName};

    use super::*;

    fn change(name: &str, target: &str) -> DnsChange {
        let target = DnsTarget::External(target.into());
        DnsChange { services: [(NamespacedName::new("a", name), target)].into(), ..DnsChange::default() }
    }

    async fn connect(feed: &DnsFeed, resume: Option<DnsPosition>) -> <DnsFeed as Feed>::DnsStream {
        feed.dns(Request::new(DnsRequest { resume, proxy_version: String::new() }))
            .await
            .unwrap()
            .into_inner()
    }

    async fn take(stream: &mut <DnsFeed as Feed>::DnsStream) -> DnsUpdate {
        stream.next().await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_proxy_gets_a_snapshot_then_deltas_and_resumes() {
        let feed = DnsFeed::new("i".into());
        let mut stream = connect(&feed, None).await;
        feed.complete();
        let first = take(&mut stream).await;
        assert!(matches!(first.change, Some(Change::Snapshot(_))));
        feed.publish(change("x", "1"));
        feed.publish(change("x", "2"));
        let second = take(&mut stream).await;
        assert!(matches!(second.change, Some(Change::Delta(_))));
        drop(stream);
        assert!(!feed.is_followed());
        let mut resumed = connect(&feed, second.position).await;
        let third = take(&mut resumed).await;
        assert_eq!(third.position.unwrap().sequence, 3);
        assert!(matches!(third.change, Some(Change::Delta(_))));
    }

    #[tokio::test]
    async fn a_position_of_another_process_or_too_old_gets_a_snapshot() {
        let feed = DnsFeed::new("i".into());
        feed.complete();
        for n in 0..=LOG {
            feed.publish(change("x", &n.to_string()));
        }
        for (instance, sequence) in [("other", 1), ("i", 1), ("i", 9999)] {
            let mut stream = connect(&feed, Some(DnsPosition { instance: instance.into(), sequence })).await;
            let update = take(&mut stream).await;
            let Some(Change::Snapshot(snapshot)) = update.change else { panic!("{instance} {sequence}") };
            assert_eq!(snapshot.services.len(), 1);
        }
    }

    #[test]
    fn nothing_is_told_before_the_view_is_complete_and_nothing_twice() {
        let feed = DnsFeed::new("i".into());
        feed.publish(change("x", "1"));
        assert_eq!(feed.next(None), None);
        feed.complete();
        let Some(first) = feed.next(None) else { panic!("a snapshot") };
        let Some(Change::Snapshot(snapshot)) = first.change else { panic!("a snapshot") };
        assert_eq!(snapshot.services.len(), 1);
        feed.publish(change("x", "1"));
        assert_eq!(feed.next(first.position.as_ref()), None);
    }
}
