//! Pods that wait for a node.
//!
//! Active pods are handed out by priority, then age. A pod that failed waits out a backoff (1 s doubling to 10 s). A pod
//! that fits nowhere waits for an event that could change that, judged by the rules that rejected it; at the latest it
//! is tried again after five minutes. Pure: time is a parameter.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::framework::{Rule, Rules};
use crate::pod_info::PodInfo;

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LAST_BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Changes in the cluster that may make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterEvent {
    /// A node appeared.
    NodeAdded,
    /// A node's labels changed.
    NodeLabels,
    /// A node's taints changed, or it was uncordoned.
    NodeTaints,
    /// A node's allocatable resources changed.
    NodeResources,
    /// A node vanished.
    NodeRemoved,
    /// A pod is on a node now, or its labels changed there.
    PodPlaced,
    /// A pod left its node.
    PodRemoved,
}

impl ClusterEvent {
    /// The rules whose verdict it may change.
    pub fn concerns(self) -> Rules {
        use Rule::{Fit, NodeAffinity, NodeName, PodAffinity, Ports, Spread, Taints, Unschedulable};
        match self {
            Self::NodeAdded => {
                [NodeName, Unschedulable, Taints, NodeAffinity, Ports, Fit, Spread, PodAffinity].into()
            }
            Self::NodeLabels => [NodeAffinity, Spread, PodAffinity].into(),
            Self::NodeTaints => [Unschedulable, Taints, Spread].into(),
            Self::NodeResources => [Fit].into(),
            Self::NodeRemoved => [Spread].into(),
            Self::PodPlaced => [Spread, PodAffinity].into(),
            Self::PodRemoved => [Ports, Fit, Spread, PodAffinity].into(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Active,
    /// Handed out; the events since then.
    InFlight(Rules),
    Backoff,
    Waiting(Rules),
}

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    state: State,
    attempts: u32,
    failed_at: Instant,
    /// Of several heap entries for a pod only the one with this number counts.
    ticket: u64,
}

type ActiveKey = (i32, Reverse<u64>, String, u64);

/// The queue.
#[derive(Debug, Default)]
pub struct SchedulingQueue {
    pods: HashMap<String, Entry>,
    active: BinaryHeap<ActiveKey>,
    backoff: BinaryHeap<Reverse<(Instant, String, u64)>>,
    /// When waiting pods are tried again for want of an event.
    overdue: BinaryHeap<Reverse<(Instant, String, u64)>>,
    /// The pods that events concern.
    attentive: HashSet<String>,
    sequence: u64,
}

impl SchedulingQueue {
    /// Adds a pod, or takes over a change of one. A changed pod that waits is tried again.
    pub fn upsert(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let uid = pod.uid.clone();
        match self.pods.get_mut(&uid) {
            None => {
                let entry = Entry { pod, state: State::Active, attempts: 0, failed_at: now, ticket: 0 };
                self.pods.insert(uid.clone(), entry);
                self.activate(&uid);
            }
            Some(entry) => {
                let changed = entry.pod.pod.spec != pod.pod.spec
                    || entry.pod.pod.metadata.labels != pod.pod.metadata.labels;
                entry.pod = pod;
                if changed && matches!(entry.state, State::Waiting(_)) {
                    self.retry(&uid, now);
                }
            }
        }
    }

    /// Removes a pod.
    pub fn remove(&mut self, uid: &str) {
        self.pods.remove(uid);
        self.attentive.remove(uid);
    }

    /// Hands out the next pod; report back by [`placed`](Self::placed), [`unschedulable`](Self::unschedulable) or
    /// [`failed`](Self::failed).
    pub fn pop(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        self.promote(now);
        while let Some((_, _, uid, ticket)) = self.active.pop() {
            let Some(entry) = self.pods.get_mut(&uid) else { continue };
            if entry.ticket == ticket && entry.state == State::Active {
                entry.state = State::InFlight(Rules::default());
                entry.attempts += 1;
                self.attentive.insert(uid);
                return Some(entry.pod.clone());
            }
        }
        None
    }

    /// When a pod will be due that is not now; none when only events can help.
    pub fn next_due(&self) -> Option<Instant> {
        let first =
            |heap: &BinaryHeap<Reverse<(Instant, String, u64)>>| heap.peek().map(|Reverse((at, _, _))| *at);
        first(&self.backoff).into_iter().chain(first(&self.overdue)).min()
    }

    /// The pod has a node.
    pub fn placed(&mut self, uid: &str) {
        self.remove(uid);
    }

    /// The pod fits nowhere; `rules` rejected nodes. Events since it was handed out count.
    pub fn unschedulable(&mut self, uid: &str, rules: Rules, now: Instant) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        entry.failed_at = now;
        let State::InFlight(seen) = entry.state else { return };
        self.sequence += 1;
        entry.state = State::Waiting(rules);
        entry.ticket = self.sequence;
        self.attentive.insert(uid.to_owned());
        self.overdue.push(Reverse((now + LONGEST_WAIT, uid.to_owned(), self.sequence)));
        if seen.intersects(rules) {
            self.retry(uid, now);
        }
    }

    /// Placing the pod failed for a reason that may pass.
    pub fn failed(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let uid = pod.uid.clone();
        let entry = self.pods.entry(uid.clone()).or_insert(Entry {
            pod,
            state: State::Backoff,
            attempts: 1,
            failed_at: now,
            ticket: 0,
        });
        entry.failed_at = now;
        self.retry(&uid, now);
    }

    /// Something changed in the cluster: pods that it may help are tried again.
    pub fn event(&mut self, event: ClusterEvent, now: Instant) {
        let concerned = event.concerns();
        let mut helped = Vec::new();
        for uid in &self.attentive {
            let Some(entry) = self.pods.get_mut(uid) else { continue };
            match &mut entry.state {
                State::InFlight(seen) => *seen = seen.union(concerned),
                // A pod rejected by no rule waits for any node at all.
                State::Waiting(rules) if rules.intersects(concerned) || *rules == Rules::default() => {
                    helped.push(uid.clone());
                }
                _ => {}
            }
        }
        for uid in helped {
            self.retry(&uid, now);
        }
    }

    /// Pods in the queue.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    fn activate(&mut self, uid: &str) {
        self.sequence += 1;
        self.attentive.remove(uid);
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.state = State::Active;
            entry.ticket = self.sequence;
            self.active.push((entry.pod.priority, Reverse(self.sequence), uid.to_owned(), self.sequence));
        }
    }

    /// Active again, after what is left of the backoff.
    fn retry(&mut self, uid: &str, now: Instant) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let factor = 1u32 << entry.attempts.saturating_sub(1).min(10);
        let due = entry.failed_at + FIRST_BACKOFF.saturating_mul(factor).min(LAST_BACKOFF);
        if due <= now || entry.attempts == 0 {
            self.activate(uid);
            return;
        }
        self.sequence += 1;
        self.attentive.remove(uid);
        entry.state = State::Backoff;
        entry.ticket = self.sequence;
        self.backoff.push(Reverse((due, uid.to_owned(), self.sequence)));
    }

    fn promote(&mut self, now: Instant) {
        while let Some(Reverse((due, _, _))) = self.backoff.peek()
            && *due <= now
            && let Some(Reverse((_, uid, ticket))) = self.backoff.pop()
        {
            let live = |entry: &Entry| entry.ticket == ticket && entry.state == State::Backoff;
            if self.pods.get(&uid).is_some_and(live) {
                self.activate(&uid);
            }
        }
        while let Some(Reverse((due, _, _))) = self.overdue.peek()
            && *due <= now
            && let Some(Reverse((_, uid, ticket))) = self.overdue.pop()
        {
            let live = |entry: &Entry| entry.ticket == ticket && matches!(entry.state, State::Waiting(_));
            if self.pods.get(&uid).is_some_and(live) {
                self.activate(&uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Pod, PodSpec};

    use super::*;

    fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.into());
        pod.metadata.uid = Some(name.into());
        pod.spec = Some(PodSpec { priority: Some(priority), ..PodSpec::default() });
        Arc::new(PodInfo::new(Arc::new(pod)))
    }

    fn next(queue: &mut SchedulingQueue, now: Instant) -> Option<String> {
        queue.pop(now).map(|pod| pod.uid.clone())
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn hands_out_by_priority_then_age() {
        let (mut queue, now) = (SchedulingQueue::default(), Instant::now());
        for (name, priority) in [("a", 0), ("b", 5), ("c", 0)] {
            queue.upsert(pod(name, priority), now);
        }
        let order: Vec<_> = std::iter::from_fn(|| next(&mut queue, now)).collect();
        assert_eq!(order, ["b", "a", "c"]);
    }

    #[test]
    fn unschedulable_pod_waits_for_an_event_that_helps() {
        let (mut queue, now) = (SchedulingQueue::default(), Instant::now());
        queue.upsert(pod("a", 0), now);
        next(&mut queue, now);
        queue.unschedulable("a", [Rule::Fit].into(), now);
        let later = now + 20 * SECOND;
        queue.event(ClusterEvent::NodeTaints, later);
        assert_eq!(next(&mut queue, later), None);
        queue.event(ClusterEvent::PodRemoved, later);
        assert_eq!(next(&mut queue, later), Some("a".into()));
    }

    #[test]
    fn event_during_the_attempt_is_not_lost() {
        let (mut queue, now) = (SchedulingQueue::default(), Instant::now());
        queue.upsert(pod("a", 0), now);
        next(&mut queue, now);
        queue.event(ClusterEvent::NodeAdded, now);
        queue.unschedulable("a", [Rule::Fit].into(), now);
        assert_eq!(next(&mut queue, now), None);
        assert_eq!(queue.next_due(), Some(now + SECOND));
        assert_eq!(next(&mut queue, now + SECOND), Some("a".into()));
    }

    #[test]
    fn backoff_doubles_to_its_limit() {
        let (mut queue, mut now) = (SchedulingQueue::default(), Instant::now());
        queue.upsert(pod("a", 0), now);
        for expected in [1, 2, 4, 8, 10, 10] {
            let pod = queue.pop(now).unwrap();
            queue.failed(pod, now);
            assert_eq!(queue.next_due(), Some(now + expected * SECOND));
            now += expected * SECOND;
        }
    }

    #[test]
    fn waiting_pod_is_tried_again_after_five_minutes() {
        let (mut queue, now) = (SchedulingQueue::default(), Instant::now());
        queue.upsert(pod("a", 0), now);
        next(&mut queue, now);
        queue.unschedulable("a", [Rule::Fit].into(), now);
        assert_eq!(next(&mut queue, now + 299 * SECOND), None);
        assert_eq!(next(&mut queue, now + 300 * SECOND), Some("a".into()));
    }

    #[test]
    fn removed_pod_is_not_handed_out() {
        let (mut queue, now) = (SchedulingQueue::default(), Instant::now());
        queue.upsert(pod("a", 0), now);
        queue.remove("a");
        assert_eq!(next(&mut queue, now), None);
        assert!(queue.is_empty());
    }
}
