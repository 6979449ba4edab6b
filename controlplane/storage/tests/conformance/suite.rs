//! The checks. Each gets a store of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use skep_storage::{
    Batch, Cache, CacheConfig, Change, CommitError, EventKind, Expect, Key, Offset, Op, ResourceId, Revision,
    Storage, Tail, TailError, Transaction, WatchItem, no_attributes,
};

use crate::stores::Subject;

const DEADLINE: Duration = Duration::from_secs(20);

fn resource() -> ResourceId {
    ResourceId::new("apps", "deployments").unwrap()
}

fn key(name: &str) -> Key {
    Key::new(resource(), Some("default"), name).unwrap()
}

fn value(text: &str) -> Bytes {
    let json = format!(r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"{text}"}}}}"#);
    json.into()
}

fn put(name: &str, text: &str, expect: Expect) -> Op {
    Op::Put { key: key(name), value: value(text), expect }
}

fn delete(name: &str, expect: Expect) -> Op {
    Op::Delete { key: key(name), expect }
}

async fn commit(store: &Arc<dyn Storage>, op: Op) -> Revision {
    store.commit(Transaction::new(vec![op])).await.unwrap()
}

async fn state(store: &Arc<dyn Storage>) -> BTreeMap<Key, (Revision, Bytes)> {
    let snapshot = store.scan().await.unwrap();
    snapshot.entries.into_iter().map(|entry| (entry.key, (entry.revision, entry.value))).collect()
}

async fn next(tail: &mut Tail) -> Arc<Batch> {
    tokio::time::timeout(DEADLINE, tail.next()).await.unwrap().unwrap().unwrap()
}

/// Batches up to and with `last`.
async fn until(tail: &mut Tail, last: Revision) -> Vec<Arc<Batch>> {
    let mut batches = Vec::new();
    while batches.last().is_none_or(|batch: &Arc<Batch>| batch.revision < last) {
        batches.push(next(tail).await);
    }
    batches
}

fn changed(name: &str, text: Option<&str>) -> Change {
    Change { key: key(name), value: text.map(value) }
}

pub(crate) async fn puts_are_read_back_at_their_revision(subject: &dyn Subject) {
    let store = subject.open(Offset(0)).await;
    let first = commit(&store, put("a", "1", Expect::Absent)).await;
    let second = commit(&store, put("b", "2", Expect::Any)).await;
    let third = commit(&store, put("a", "3", Expect::At(first))).await;
    assert!(Revision(0) < first && first < second && second < third);
    assert_eq!(store.revision().await.unwrap(), third);
    let expected = BTreeMap::from([(key("a"), (third, value("3"))), (key("b"), (second, value("2")))]);
    assert_eq!(state(&store).await, expected);
    assert_eq!(store.scan().await.unwrap().revision, third);
}

pub(crate) async fn preconditions_hold_or_nothing_is_written(subject: &dyn Subject) {
    let store = subject.open(Offset(0)).await;
    let at = commit(&store, put("a", "1", Expect::Absent)).await;
    let before = state(&store).await;
    let refused = [
        (put("a", "2", Expect::Absent), Some(at)),
        (put("a", "2", Expect::At(at.next())), Some(at)),
        (put("a", "2", Expect::At(Revision(0))), Some(at)),
        (put("b", "2", Expect::Exists), None),
        (put("b", "2", Expect::At(at)), None),
        (delete("b", Expect::Exists), None),
        (delete("a", Expect::At(at.next())), Some(at)),
    ];
    for (op, expected) in refused {
        match store.commit(Transaction::new(vec![op.clone()])).await {
            Err(CommitError::Conflict { key, actual }) => {
                assert_eq!((&key, actual), (op.key(), expected), "{op:?}");
            }
            other => panic!("{op:?}: {other:?}"),
        }
    }
    assert_eq!(state(&store).await, before);
    commit(&store, put("a", "2", Expect::Exists)).await;
    commit(&store, delete("a", Expect::Exists)).await;
    commit(&store, put("a", "3", Expect::Absent)).await;
}

pub(crate) async fn transactions_are_all_or_nothing(subject: &dyn Subject) {
    let store = subject.open(Offset(0)).await;
    commit(&store, put("taken", "1", Expect::Absent)).await;
    let mixed = vec![put("service", "1", Expect::Absent), put("taken", "2", Expect::Absent)];
    match store.commit(Transaction::new(mixed)).await {
        Err(CommitError::Conflict { key: conflicting, .. }) => assert_eq!(conflicting, key("taken")),
        other => panic!("{other:?}"),
    }
    assert!(!state(&store).await.contains_key(&key("service")));
    let both = vec![put("service", "1", Expect::Absent), delete("taken", Expect::Exists)];
    let revision = store.commit(Transaction::new(both)).await.unwrap();
    let expected = BTreeMap::from([(key("service"), (revision, value("1")))]);
    assert_eq!(state(&store).await, expected, "both happened, at one revision");
}

pub(crate) async fn deletes_remove_and_absent_deletes_change_nothing(subject: &dyn Subject) {
    let store = subject.open(Offset(0)).await;
    let began = store.revision().await.unwrap();
    commit(&store, put("a", "1", Expect::Any)).await;
    commit(&store, delete("a", Expect::Any)).await;
    let last = commit(&store, delete("a", Expect::Any)).await;
    assert!(state(&store).await.is_empty());
    let mut tail = store.tail(began).await.unwrap();
    let changes: Vec<_> = until(&mut tail, last).await.iter().map(|batch| batch.changes.clone()).collect();
    assert_eq!(changes, [vec![changed("a", Some("1"))], vec![changed("a", None)], vec![]]);
}

pub(crate) async fn malformed_transactions_are_refused(subject: &dyn Subject) {
    let store = subject.open(Offset(0)).await;
    let empty = store.commit(Transaction::default()).await;
    assert!(matches!(empty, Err(CommitError::OpCount { count: 0 })));
    let twice = Transaction::new(vec![put("a", "1", Expect::Any), delete("a", Expect::Any)]);
    assert!(matches!(store.commit(twice).await, Err(CommitError::RepeatedKey { .. })));
    let large = Transaction::put(key("a"), vec![b'x'; 2_000_000], Expect::Any);
    assert!(matches!(store.commit(large).await, Err(CommitError::TooLarge { .. })));
    let fits = Transaction::put(key("a"), vec![b'x'; 1_400_000], Expect::Any);
    store.commit(fits).await.unwrap();
    let many = (0..120).map(|n| put(&format!("n{n}"), "1", Expect::Absent)).collect();
    store.commit(Transaction::new(many)).await.unwrap();
}

pub(crate) async fn a_tail_brings_the_past_then_the_present_exactly_once(subject: &dyn Subject) {
    let store = subject.open(Offset(0)).await;
    let began = store.revision().await.unwrap();
    let first = commit(&store, put("a", "1", Expect::Any)).await;
    let second = commit(&store, put("a", "2", Expect::Any)).await;
    let mut all = store.tail(began).await.unwrap();
    let mut some = store.tail(first).await.unwrap();
    let mut none = store.tail(second).await.unwrap();
    let third = store
        .commit(Transaction::new(vec![delete("a", Expect::Any), put("b", "3", Expect::Any)]))
        .await
        .unwrap();
    let expected = [
        Batch { revision: first, changes: vec![changed("a", Some("1"))] },
        Batch { revision: second, changes: vec![changed("a", Some("2"))] },
        Batch { revision: third, changes: vec![changed("a", None), changed("b", Some("3"))] },
    ];
    for (tail, skipped) in [(&mut all, 0), (&mut some, 1), (&mut none, 2)] {
        let seen: Vec<_> = until(tail, third).await.iter().map(|batch| (**batch).clone()).collect();
        assert_eq!(seen, expected[skipped..]);
    }
}

pub(crate) async fn history_shows_what_each_change_replaced(subject: &dyn Subject) {
    let store = subject.open(Offset(0)).await;
    let began = store.revision().await.unwrap();
    let first = commit(&store, put("a", "1", Expect::Any)).await;
    let second = commit(&store, put("a", "2", Expect::Any)).await;
    let third = commit(&store, delete("a", Expect::Any)).await;
    let fourth = commit(&store, put("a", "4", Expect::Any)).await;
    let history = store.history(began, fourth).await.unwrap();
    let seen: Vec<_> = history
        .iter()
        .map(|past| {
            (
                past.revision,
                past.change.clone(),
                past.previous.as_ref().map(|p| (p.revision, p.value.clone())),
            )
        })
        .collect();
    let expected = [
        (first, changed("a", Some("1")), None),
        (second, changed("a", Some("2")), Some((first, value("1")))),
        (third, changed("a", None), Some((second, value("2")))),
        (fourth, changed("a", Some("4")), None),
    ];
    assert_eq!(seen, expected);
    let middle = store.history(first, third).await.unwrap();
    assert_eq!(middle.iter().map(|past| past.revision).collect::<Vec<_>>(), [second, third]);
    assert!(store.history(fourth, fourth).await.unwrap().is_empty());
}

pub(crate) async fn compaction_forgets_the_past_but_not_the_state(subject: &dyn Subject) {
    let store = subject.open(Offset(0)).await;
    let began = store.revision().await.unwrap();
    commit(&store, put("a", "1", Expect::Any)).await;
    let second = commit(&store, put("a", "2", Expect::Any)).await;
    let third = commit(&store, put("a", "3", Expect::Any)).await;
    store.compact(second).await.unwrap();
    store.compact(second).await.unwrap();
    for outcome in [store.tail(began).await.map(drop), store.history(began, third).await.map(drop)] {
        match outcome {
            Err(TailError::Compacted { oldest }) => assert_eq!(oldest, second),
            other => panic!("{other:?}"),
        }
    }
    let history = store.history(second, third).await.unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].previous.as_ref().unwrap().value, value("2"));
    assert_eq!(state(&store).await, BTreeMap::from([(key("a"), (third, value("3")))]));
    store.compact(Revision(third.0 + 1_000)).await.unwrap();
    let fourth = commit(&store, put("a", "4", Expect::At(third))).await;
    assert!(fourth > third);
    let mut tail = store.tail(third).await.unwrap();
    assert_eq!(next(&mut tail).await.revision, fourth);
}

pub(crate) async fn concurrent_increments_lose_nothing(subject: &dyn Subject) {
    const CLIENTS: u32 = 8;
    const EACH: u32 = 10;
    let store = subject.open(Offset(0)).await;
    let counter = |count: u32| Bytes::from(count.to_string());
    store.commit(Transaction::put(key("counter"), counter(0), Expect::Absent)).await.unwrap();
    let increment = |store: Arc<dyn Storage>| async move {
        let mut done = 0;
        while done < EACH {
            let entry = store.scan().await.unwrap().entries.remove(0);
            let count: u32 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
            let next = Transaction::put(key("counter"), counter(count + 1), Expect::At(entry.revision));
            match store.commit(next).await {
                Ok(_) => done += 1,
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(increment(Arc::clone(&store)))).collect();
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(state(&store).await[&key("counter")].1, counter(CLIENTS * EACH));
}

pub(crate) async fn a_tail_rebuilds_the_state_under_concurrent_writes(subject: &dyn Subject) {
    let store = subject.open(Offset(0)).await;
    let mut tail = store.tail(store.revision().await.unwrap()).await.unwrap();
    let write = |store: Arc<dyn Storage>, client: u32| async move {
        for round in 0..25 {
            let name = format!("key-{}", (client + round) % 7);
            let op = if (client * round) % 5 == 4 {
                delete(&name, Expect::Any)
            } else {
                put(&name, &format!("{client}-{round}"), Expect::Any)
            };
            store.commit(Transaction::new(vec![op])).await.unwrap();
        }
    };
    let clients: Vec<_> = (0..6).map(|client| tokio::spawn(write(Arc::clone(&store), client))).collect();
    for client in clients {
        client.await.unwrap();
    }
    let last = store.revision().await.unwrap();
    let mut rebuilt = BTreeMap::new();
    let mut seen = Revision(0);
    for batch in until(&mut tail, last).await {
        assert!(batch.revision > seen, "in order and once");
        seen = batch.revision;
        for change in &batch.changes {
            match &change.value {
                Some(value) => rebuilt.insert(change.key.clone(), (batch.revision, value.clone())),
                None => rebuilt.remove(&change.key),
            };
        }
    }
    assert_eq!(rebuilt, state(&store).await);
}

pub(crate) async fn a_role_has_one_leader_at_a_time(subject: &dyn Subject) {
    let store = subject.open(Offset(0)).await;
    let first = store.campaign("scheduler", "a").await.unwrap();
    let other = store.campaign("controllers", "a").await.unwrap();
    assert!(!first.is_lost() && !other.is_lost());
    let rival = Arc::clone(&store);
    let mut second = tokio::spawn(async move { rival.campaign("scheduler", "b").await });
    let early = tokio::time::timeout(Duration::from_millis(300), &mut second).await;
    assert!(early.is_err(), "there is a leader already");
    drop(first);
    let second = tokio::time::timeout(DEADLINE, second).await.unwrap().unwrap().unwrap();
    assert!(!second.is_lost());
}

pub(crate) async fn served_revisions_start_after_the_offset(subject: &dyn Subject) {
    let store = subject.open(Offset(1_000_000)).await;
    let began = store.revision().await.unwrap();
    let first = commit(&store, put("a", "1", Expect::Absent)).await;
    assert!(first > began && began > Revision(1_000_000));
    let second = commit(&store, put("a", "2", Expect::At(first))).await;
    let history = store.history(first, second).await.unwrap();
    assert_eq!(history[0].previous.as_ref().unwrap().revision, first);
    assert_eq!(store.scan().await.unwrap().entries[0].revision, second);
    let mut tail = store.tail(began).await.unwrap();
    assert_eq!(next(&mut tail).await.revision, first);
    match store.tail(Revision(999_999)).await.map(drop) {
        Err(TailError::Compacted { .. }) => {}
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn a_raised_offset_hides_what_was_served_before(subject: &dyn Subject) {
    let store = subject.open(Offset(0)).await;
    let old = commit(&store, put("a", "1", Expect::Absent)).await;
    drop(store);
    let store = subject.open(Offset(5_000)).await;
    let began = store.revision().await.unwrap();
    assert!(began > Revision(5_000));
    match store.tail(old).await.map(drop) {
        Err(TailError::Compacted { oldest }) => assert!(oldest > old),
        other => panic!("{other:?}"),
    }
    let entry = store.scan().await.unwrap().entries.remove(0);
    assert!(entry.revision > Revision(5_000));
    let new = commit(&store, put("a", "2", Expect::At(entry.revision))).await;
    drop(store);
    let again = subject.open(Offset(0)).await;
    assert_eq!(again.revision().await.unwrap(), new, "the offset is kept in the store");
}

async fn open_cache(store: &Arc<dyn Storage>) -> Arc<Cache> {
    Cache::open(Arc::clone(store), no_attributes(), CacheConfig::default()).await.unwrap()
}

/// The next `count` events of a watch, as (kind, name, revision, previous revision).
async fn events(
    cache: &Cache,
    from: Revision,
    count: usize,
) -> Vec<(EventKind, String, Revision, Option<Revision>)> {
    let mut watcher = cache.watch(&resource(), None, from).unwrap();
    let mut events = Vec::new();
    while events.len() < count {
        let item = tokio::time::timeout(DEADLINE, watcher.next()).await.unwrap().unwrap();
        if let WatchItem::Event(event) = item {
            let previous = event.previous.as_ref().map(|object| object.revision());
            events.push((event.kind, event.object.key().name().to_owned(), event.revision, previous));
        }
    }
    events
}

pub(crate) async fn a_cache_resumes_watches_across_a_restart(subject: &dyn Subject) {
    let store = subject.open(Offset(0)).await;
    let cache = open_cache(&store).await;
    let began = cache.revision();
    let committed = cache.commit(Transaction::new(vec![put("a", "1", Expect::Absent)])).await.unwrap();
    let first = committed.revision;
    assert_eq!(cache.get(&key("a")).unwrap().revision(), first, "it reads its own writes");
    let second =
        cache.commit(Transaction::new(vec![put("a", "2", Expect::At(first))])).await.unwrap().revision;
    let third = cache.commit(Transaction::new(vec![delete("a", Expect::Any)])).await.unwrap().revision;
    let fourth = cache.commit(Transaction::new(vec![put("b", "4", Expect::Any)])).await.unwrap().revision;
    let name = |name: &str| name.to_owned();
    let expected = [
        (EventKind::Added, name("a"), first, None),
        (EventKind::Modified, name("a"), second, Some(first)),
        (EventKind::Deleted, name("a"), third, Some(second)),
        (EventKind::Added, name("b"), fourth, None),
    ];
    assert_eq!(events(&cache, began, 4).await, expected);
    cache.close().await;
    drop((cache, store));
    let store = subject.open(Offset(0)).await;
    let cache = open_cache(&store).await;
    assert_eq!(cache.fresh().await.unwrap(), fourth);
    assert_eq!(events(&cache, began, 4).await, expected, "as if nothing had happened");
    assert_eq!(events(&cache, second, 2).await, expected[2..]);
    let then = cache.list(&resource(), None, Some(second), None, None).unwrap();
    assert_eq!(then.objects.len(), 1);
    assert_eq!(then.objects[0].revision(), second);
}

pub(crate) async fn a_cache_starts_over_when_its_past_is_compacted(subject: &dyn Subject) {
    let store = subject.open(Offset(0)).await;
    let first = commit(&store, put("a", "1", Expect::Any)).await;
    let second = commit(&store, put("a", "2", Expect::Any)).await;
    commit(&store, put("a", "3", Expect::Any)).await;
    store.compact(second).await.unwrap();
    let cache = open_cache(&store).await;
    let expired = cache.watch(&resource(), None, first).unwrap_err();
    assert_eq!(expired.oldest, second);
    assert_eq!(events(&cache, second, 1).await.len(), 1);
}
