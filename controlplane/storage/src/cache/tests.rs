//! The cache against a naive model that keeps every state of the world.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::state::State;
use super::{Cache, CacheConfig, Expired, WatchItem};
use crate::{
    Batch, Change, EventKind, Expect, Key, MemoryStorage, Object, Op, ResourceId, Revision, Transaction,
    no_attributes,
};

fn resource(number: u8) -> ResourceId {
    ResourceId::new("", ["pods", "nodes"][usize::from(number) % 2]).unwrap()
}

/// Nodes have no namespace, pods one of three.
fn key(resource_number: u8, place: u8) -> Key {
    let namespace = resource_number.is_multiple_of(2).then(|| ["a", "a-b", "b"][usize::from(place) % 3]);
    Key::new(resource(resource_number), namespace, &format!("name-{}", place / 3)).unwrap()
}

fn value(number: usize) -> Bytes {
    format!(r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"uid":"{number}"}}}}"#).into()
}

/// Every state of the world, by revision.
struct Model {
    states: Vec<BTreeMap<Key, Revision>>,
}

impl Model {
    fn at(&self, revision: Revision) -> &BTreeMap<Key, Revision> {
        &self.states[usize::try_from(revision.0).unwrap() - 1]
    }

    fn last(&self) -> Revision {
        Revision(self.states.len() as u64)
    }

    fn list(&self, resource: &ResourceId, namespace: Option<&str>, at: Revision) -> Vec<(Key, Revision)> {
        let here =
            |key: &Key| key.resource() == resource && (namespace.is_none() || key.namespace() == namespace);
        self.at(at).iter().filter(|(key, _)| here(key)).map(|(key, rev)| (key.clone(), *rev)).collect()
    }

    /// The changes between two neighbouring states, by key.
    fn events(
        &self,
        resource: &ResourceId,
        namespace: Option<&str>,
        from: Revision,
    ) -> Vec<(Revision, Key, EventKind)> {
        let mut events = Vec::new();
        for revision in from.0 + 1..=self.last().0 {
            let (before, after) = (self.at(Revision(revision - 1)), self.at(Revision(revision)));
            let mut step: Vec<_> = after
                .iter()
                .filter(|(key, written)| before.get(*key) != Some(*written))
                .map(|(key, _)| {
                    (key, if before.contains_key(key) { EventKind::Modified } else { EventKind::Added })
                })
                .chain(
                    before
                        .keys()
                        .filter(|key| !after.contains_key(*key))
                        .map(|key| (key, EventKind::Deleted)),
                )
                .collect();
            step.sort_by_key(|(key, _)| *key);
            let here = |key: &Key| {
                key.resource() == resource && (namespace.is_none() || key.namespace() == namespace)
            };
            events.extend(
                step.into_iter()
                    .filter(|(key, _)| here(key))
                    .map(|(key, kind)| (Revision(revision), key.clone(), kind)),
            );
        }
        events
    }
}

/// One transaction: resource, place, and whether it deletes, for each key.
type Step = Vec<(u8, u8, bool)>;

fn run(steps: &[Step], config: CacheConfig) -> (State, Model) {
    let mut state = State::new(Revision(1), no_attributes(), config);
    let mut model = Model { states: vec![BTreeMap::new()] };
    let now = Instant::now();
    for (number, step) in steps.iter().enumerate() {
        let revision = model.last().next();
        let mut world = model.at(model.last()).clone();
        let keys: BTreeMap<Key, bool> =
            step.iter().map(|(r, place, delete)| (key(*r, *place), *delete)).collect();
        let mut changes = Vec::new();
        for (key, delete) in keys {
            if delete && world.remove(&key).is_none() {
                continue;
            }
            if !delete {
                world.insert(key.clone(), revision);
            }
            changes.push(Change { key, value: (!delete).then(|| value(number)) });
        }
        state.apply(&Batch { revision, changes }, now);
        model.states.push(world);
    }
    (state, model)
}

fn revisions(objects: &[Arc<Object>]) -> Vec<(Key, Revision)> {
    objects.iter().map(|object| (object.key().clone(), object.revision())).collect()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = (0u8..2, 0u8..12, prop::bool::weighted(0.35));
    prop::collection::vec(prop::collection::vec(one, 1..4), 1..60)
}

const NAMESPACES: [Option<&str>; 4] = [None, Some("a"), Some("a-b"), Some("none")];

proptest! {
    #[test]
    fn pages_of_any_size_at_any_revision_equal_the_model(
        steps in steps(), at in any::<prop::sample::Index>(), limit in 1usize..5, which in 0u8..2,
    ) {
        let (state, model) = run(&steps, CacheConfig::default());
        let at = Revision(at.index(model.states.len()) as u64 + 1);
        let resource = resource(which);
        for namespace in NAMESPACES {
            let expected = model.list(&resource, namespace, at);
            let mut listed = Vec::new();
            let mut after: Option<Key> = None;
            loop {
                let page = state.list(&resource, namespace, Some(at), after.as_ref(), Some(limit)).unwrap();
                listed.extend(revisions(&page.objects));
                prop_assert_eq!(page.remaining, expected.len() - listed.len());
                if page.remaining == 0 {
                    break;
                }
                after = page.objects.last().map(|object| object.key().clone());
            }
            prop_assert_eq!(&listed, &expected);
            let whole = state.list(&resource, namespace, Some(at), None, None).unwrap();
            prop_assert_eq!(revisions(&whole.objects), expected);
        }
        prop_assert_eq!(state.count(&resource), model.list(&resource, None, model.last()).len());
    }

    #[test]
    fn replays_from_any_revision_equal_the_model(
        steps in steps(), from in any::<prop::sample::Index>(), which in 0u8..2,
    ) {
        let (state, model) = run(&steps, CacheConfig::default());
        let from = Revision(from.index(model.states.len()) as u64 + 1);
        for namespace in NAMESPACES {
            let replay = state.replay(&resource(which), namespace, from).unwrap();
            let mut seen: Vec<_> =
                replay.iter().map(|e| (e.revision, e.object.key().clone(), e.kind)).collect();
            seen.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
            prop_assert_eq!(seen, model.events(&resource(which), namespace, from));
            for event in replay {
                let before = model.at(Revision(event.revision.0 - 1)).get(event.object.key()).copied();
                prop_assert_eq!(event.previous.as_ref().map(|object| object.revision()), before);
                prop_assert_eq!(event.object.revision(), event.revision);
            }
        }
    }

    #[test]
    fn a_short_memory_either_answers_right_or_says_expired(
        steps in steps(), at in any::<prop::sample::Index>(), memory in 0usize..6, which in 0u8..2,
    ) {
        let config = CacheConfig { max_events: memory, min_events: 0, ..CacheConfig::default() };
        let (state, model) = run(&steps, config);
        let at = Revision(at.index(model.states.len()) as u64 + 1);
        let resource = resource(which);
        match state.list(&resource, None, Some(at), None, None) {
            Ok(page) => prop_assert_eq!(revisions(&page.objects), model.list(&resource, None, at)),
            Err(Expired { oldest, newest, .. }) => {
                prop_assert!(at < oldest && newest == model.last());
                prop_assert!(model.events(&resource, None, at).len() > memory, "nothing is forgotten without need");
            }
        }
    }
}

#[test]
fn revisions_out_of_range_are_expired() {
    let (state, model) = run(&[vec![(0, 0, false)]], CacheConfig::default());
    let future = model.last().next();
    assert!(state.list(&resource(0), None, Some(future), None, None).is_err());
    assert!(state.replay(&resource(0), None, future).is_err());
    assert!(state.replay(&resource(0), None, Revision(0)).is_err());
}

#[test]
fn events_are_forgotten_with_age_but_some_are_always_kept() {
    let config = CacheConfig { max_age: Duration::from_secs(60), min_events: 2, ..CacheConfig::default() };
    let steps: Vec<Step> = (0..5).map(|_| vec![(0, 0, false)]).collect();
    let (mut state, model) = run(&steps, config);
    state.expire(Instant::now() + Duration::from_secs(30));
    assert_eq!(state.replay(&resource(0), None, Revision(1)).unwrap().len(), 5);
    state.expire(Instant::now() + Duration::from_secs(120));
    assert!(state.replay(&resource(0), None, Revision(3)).is_err());
    assert_eq!(state.replay(&resource(0), None, Revision(4)).unwrap().len(), 2);
    assert_eq!(model.last(), Revision(6));
}

fn put(place: u8, number: usize) -> Transaction {
    Transaction::new(vec![Op::Put { key: key(0, place), value: value(number), expect: Expect::Any }])
}

async fn cache(config: CacheConfig) -> Arc<Cache> {
    Cache::open(Arc::new(MemoryStorage::new()), no_attributes(), config).await.unwrap()
}

#[tokio::test]
async fn commits_return_the_objects_they_made() {
    let cache = cache(CacheConfig::default()).await;
    let made = cache.commit(put(0, 1)).await.unwrap();
    let object = made.objects[0].as_ref().unwrap();
    assert_eq!(object.revision(), made.revision);
    assert!(Arc::ptr_eq(object, &cache.get(&key(0, 0)).unwrap()));
    let gone = cache.commit(Transaction::delete(key(0, 0), Expect::Exists)).await.unwrap();
    let last = gone.objects[0].as_ref().unwrap();
    assert_eq!(last.revision(), gone.revision);
    assert!(std::str::from_utf8(last.json()).unwrap().contains(r#""uid":"1""#));
    assert!(cache.get(&key(0, 0)).is_none());
    let absent = cache.commit(Transaction::delete(key(0, 0), Expect::Any)).await.unwrap();
    assert!(absent.objects[0].is_none());
}

#[tokio::test]
async fn one_encoding_is_shared_by_all_watchers_and_readers() {
    let cache = cache(CacheConfig::default()).await;
    let from = cache.revision();
    let mut watchers: Vec<_> = (0..3).map(|_| cache.watch(&resource(0), None, from).unwrap()).collect();
    cache.commit(put(0, 1)).await.unwrap();
    let mut frames = Vec::new();
    for watcher in &mut watchers {
        let Some(WatchItem::Event(event)) = watcher.next().await else { panic!("no event") };
        frames.push(event.frame());
    }
    assert!(frames.iter().all(|frame| frame.as_ptr() == frames[0].as_ptr()));
    let json = cache.get(&key(0, 0)).unwrap().json().clone();
    assert!(frames[0].as_ptr_range().contains(&json.as_ptr()));
}

#[tokio::test]
async fn a_watcher_that_lags_is_ended_and_others_go_on() {
    let config = CacheConfig { watcher_queue: 4, ..CacheConfig::default() };
    let cache = cache(config).await;
    let from = cache.revision();
    let mut slow = cache.watch(&resource(0), None, from).unwrap();
    let mut elsewhere = cache.watch(&resource(0), Some("b"), from).unwrap();
    for number in 0..20 {
        cache.commit(put(0, number)).await.unwrap();
    }
    let mut last = from;
    while let Some(item) = slow.next().await {
        if let WatchItem::Event(event) = item {
            assert_eq!(event.revision, last.next());
            last = event.revision;
        }
    }
    let mut again = cache.watch(&resource(0), None, last).unwrap();
    let Some(WatchItem::Event(event)) = again.next().await else { panic!("no event") };
    assert_eq!(event.revision, last.next(), "it resumes where it was ended");
    cache.commit(put(2, 1)).await.unwrap();
    let seen = loop {
        match elsewhere.next().await.unwrap() {
            WatchItem::Event(event) => break event,
            WatchItem::Bookmark(_) => {}
        }
    };
    assert_eq!(seen.object.key(), &key(0, 2));
}

#[tokio::test]
async fn bookmarks_never_overtake_events() {
    let config = CacheConfig { bookmark_every: Duration::from_millis(1), ..CacheConfig::default() };
    let cache = cache(config).await;
    let mut watcher = cache.watch(&resource(0), None, cache.revision()).unwrap();
    let writer = Arc::clone(&cache);
    let writes = tokio::spawn(async move {
        for number in 0..200 {
            writer.commit(put(0, number)).await.unwrap();
            tokio::task::yield_now().await;
        }
        writer.revision()
    });
    let (mut seen, mut bookmarks) = (cache.revision(), 0);
    let last = Revision(201);
    while seen < last || bookmarks == 0 {
        match watcher.next().await.unwrap() {
            WatchItem::Event(event) => {
                assert_eq!(event.revision, seen.next());
                seen = event.revision;
            }
            WatchItem::Bookmark(revision) => {
                assert_eq!(revision, seen, "everything before a bookmark has been sent");
                bookmarks += 1;
            }
        }
    }
    assert_eq!(writes.await.unwrap(), last);
}

#[tokio::test]
async fn leaving_a_selector_shows_the_last_state_at_the_new_revision() {
    let cache = cache(CacheConfig::default()).await;
    let from = cache.commit(put(0, 1)).await.unwrap().revision;
    let mut watcher = cache.watch(&resource(0), None, from).unwrap();
    let changed = cache.commit(put(0, 2)).await.unwrap().revision;
    let Some(WatchItem::Event(event)) = watcher.next().await else { panic!("no event") };
    let gone = event.last_state().unwrap();
    let frame = gone.watch_frame(EventKind::Deleted);
    let text = std::str::from_utf8(&frame).unwrap();
    assert!(text.starts_with(r#"{"type":"DELETED""#) && text.contains(r#""uid":"1""#));
    assert!(text.contains(&format!(r#""resourceVersion":"{changed}""#)));
}
