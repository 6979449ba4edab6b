//! A work queue of keys: deduplicated, delayed, with exponential backoff per key.
//!
//! A key is handed to one worker at a time; added while being worked on, it is handed out once more afterwards.
//! [`QueueCore`] is the pure part (time is a parameter); [`WorkQueue`] adds waiting.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// What a worker gets when it asks for a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Pop<K> {
    /// Work on this key, then call [`QueueCore::done`].
    Ready(K),
    /// Nothing is due before this time.
    At(Instant),
    /// Nothing is due at all.
    Empty,
}

/// The state of a work queue.
pub struct QueueCore<K> {
    ready: VecDeque<K>,
    queued: HashSet<K>,
    working: HashSet<K>,
    again: HashSet<K>,
    delayed: BinaryHeap<Reverse<(Instant, u64)>>,
    delayed_keys: HashMap<u64, K>,
    due: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    sequence: u64,
}

impl<K> Default for QueueCore<K> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            working: HashSet::new(),
            again: HashSet::new(),
            delayed: BinaryHeap::new(),
            delayed_keys: HashMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
        }
    }
}

impl<K: Clone + Eq + Hash> QueueCore<K> {
    /// Makes `key` due now.
    pub fn add(&mut self, key: K) {
        if self.working.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    /// Makes `key` due at `at`; of several delays the earliest counts.
    pub fn add_at(&mut self, key: K, at: Instant) {
        if let Some((due, id)) = self.due.get(&key) {
            if *due <= at {
                return;
            }
            let id = *id;
            self.delayed_keys.remove(&id);
        }
        self.sequence += 1;
        self.delayed.push(Reverse((at, self.sequence)));
        self.delayed_keys.insert(self.sequence, key.clone());
        self.due.insert(key, (at, self.sequence));
    }

    /// Makes `key` due after its next backoff and returns that delay.
    pub fn retry(&mut self, key: K, now: Instant) -> Duration {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let delay = FIRST_RETRY.saturating_mul(1 << (*failures).min(20)).min(LAST_RETRY);
        *failures += 1;
        self.add_at(key, now + delay);
        delay
    }

    /// Resets the backoff of `key` after a success.
    pub fn forget(&mut self, key: &K) {
        self.failures.remove(key);
    }

    /// Hands out the next due key.
    pub fn pop(&mut self, now: Instant) -> Pop<K> {
        self.promote(now);
        if let Some(key) = self.ready.pop_front() {
            self.queued.remove(&key);
            self.working.insert(key.clone());
            return Pop::Ready(key);
        }
        self.delayed.peek().map_or(Pop::Empty, |Reverse((at, _))| Pop::At(*at))
    }

    /// Takes `key` back from its worker.
    pub fn done(&mut self, key: &K) {
        self.working.remove(key);
        if self.again.remove(key) {
            self.add(key.clone());
        }
    }

    /// Keys due now and not yet handed out.
    pub fn depth(&self) -> usize {
        self.ready.len()
    }

    fn promote(&mut self, now: Instant) {
        while let Some(Reverse((at, id))) = self.delayed.peek().copied() {
            let live = self.delayed_keys.contains_key(&id);
            if live && at > now {
                return;
            }
            self.delayed.pop();
            if let Some(key) = self.delayed_keys.remove(&id) {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }
}

/// A [`QueueCore`] that workers can wait on.
pub struct WorkQueue<K> {
    core: Mutex<QueueCore<K>>,
    notify: Notify,
}

impl<K> Default for WorkQueue<K> {
    fn default() -> Self {
        Self { core: Mutex::default(), notify: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash> WorkQueue<K> {
    /// Makes `key` due now.
    pub fn add(&self, key: K) {
        self.core.lock().add(key);
        self.notify.notify_one();
    }

    /// Makes `key` due after `delay`.
    pub fn add_after(&self, key: K, delay: Duration) {
        self.core.lock().add_at(key, Instant::now() + delay);
        self.notify.notify_one();
    }

    /// Makes `key` due after its next backoff and returns that delay.
    pub fn retry(&self, key: K) -> Duration {
        let delay = self.core.lock().retry(key, Instant::now());
        self.notify.notify_one();
        delay
    }

    /// Resets the backoff of `key`.
    pub fn forget(&self, key: &K) {
        self.core.lock().forget(key);
    }

    /// Takes `key` back from its worker.
    pub fn done(&self, key: &K) {
        self.core.lock().done(key);
        self.notify.notify_one();
    }

    /// Waits for the next due key.
    pub async fn next(&self) -> K {
        loop {
            let pop = self.core.lock().pop(Instant::now());
            match pop {
                Pop::Ready(key) => {
                    // Several adds may have been folded into one notification: wake a sibling.
                    self.notify.notify_one();
                    return key;
                }
                Pop::At(at) => {
                    tokio::select! {
                        () = self.notify.notified() => {}
                        () = tokio::time::sleep_until(at.into()) => {}
                    }
                }
                Pop::Empty => self.notify.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_added_while_worked_on_is_handed_out_once_more() {
        let now = Instant::now();
        let mut queue = QueueCore::default();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.pop(now), Pop::Ready("a"));
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.pop(now), Pop::Empty);
        queue.done(&"a");
        assert_eq!(queue.pop(now), Pop::Ready("a"));
        queue.done(&"a");
        assert_eq!(queue.pop(now), Pop::Empty);
    }

    #[test]
    fn earliest_of_several_delays_counts() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut queue = QueueCore::default();
        queue.add_at("a", now + 5 * second);
        queue.add_at("a", now + 2 * second);
        queue.add_at("a", now + 9 * second);
        assert!(matches!(queue.pop(now + second), Pop::At(_)));
        assert_eq!(queue.pop(now + 2 * second), Pop::Ready("a"));
        queue.done(&"a");
        assert_eq!(queue.pop(now + 60 * second), Pop::Empty);
    }

    #[test]
    fn retries_back_off_until_forgotten() {
        let now = Instant::now();
        let mut queue = QueueCore::default();
        assert_eq!(queue.retry("a", now), FIRST_RETRY);
        assert_eq!(queue.retry("a", now), FIRST_RETRY * 2);
        for _ in 0..40 {
            queue.retry("a", now);
        }
        assert_eq!(queue.retry("a", now), LAST_RETRY);
        queue.forget(&"a");
        assert_eq!(queue.retry("a", now), FIRST_RETRY);
    }
}
