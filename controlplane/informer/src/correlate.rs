//! Which write an event becomes: a new object, a higher count on an old one, or nothing.
//!
//! Equal events within the memory of the correlator become one object with a count. More than
//! [`SIMILAR_LIMIT`] events that differ only in their message become one "combined" event. An object that produces
//! events without end is cut off by a token bucket. These are the rules that users of `kubectl describe` know.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Messages that may differ before similar events are combined.
const SIMILAR_LIMIT: u32 = 10;
const SIMILAR_WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// Events that an object may produce at once, and how often one more.
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;
/// Objects and events remembered; the oldest are forgotten first.
const MEMORY: usize = 4096;

/// How the message of a combined event begins.
const COMBINED: &str = "(combined from similar events)";

/// The two kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// For information.
    Normal,
    /// Something may need attention.
    Warning,
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        })
    }
}

/// Something worth telling about an object.
#[derive(Debug, Clone)]
pub struct EventRequest {
    /// The object concerned.
    pub object: ObjectReference,
    /// Normal or warning.
    pub kind: EventType,
    /// One CamelCase word.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// What to send to the API.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "short-lived, handled one at a time")]
pub enum Write {
    /// Create this event.
    Create(Event),
    /// Raise the count of an event that exists.
    Repeat {
        /// Namespace of the event.
        namespace: String,
        /// Name of the event.
        name: String,
        /// New count.
        count: i32,
        /// Message to show from now on.
        message: String,
        /// When it happened last.
        last: Timestamp,
        /// What to create should it be gone.
        event: Box<Event>,
    },
    /// Too many events about this object: send nothing.
    Drop,
}

type Exact = (String, EventType, String, String);
type Similar = (String, EventType, String);

/// The memory of what was sent.
pub struct Correlator {
    component: String,
    host: Option<String>,
    sent: Bounded<Exact, Event>,
    similar: Bounded<Similar, (u32, Timestamp)>,
    buckets: Bounded<String, (f64, Timestamp)>,
}

impl Correlator {
    /// A correlator for the events of one component (`host`: the node it speaks for).
    pub fn new(component: impl Into<String>, host: Option<String>) -> Self {
        Self {
            component: component.into(),
            host,
            sent: Bounded::default(),
            similar: Bounded::default(),
            buckets: Bounded::default(),
        }
    }

    /// Decides what `request` becomes.
    pub fn observe(&mut self, request: EventRequest, now: Timestamp) -> Write {
        let object = identity(&request.object);
        if !self.take_token(&object, now) {
            return Write::Drop;
        }
        let message = self.combine(&object, &request, now);
        let key = (object, request.kind, request.reason.clone(), message.clone());
        if let Some(event) = self.sent.get_mut(&key) {
            let count = event.count.unwrap_or(1) + 1;
            event.count = Some(count);
            event.last_timestamp = Some(Time(now));
            let combined = key.3 == COMBINED;
            event.message =
                Some(if combined { format!("{COMBINED}: {}", request.message) } else { request.message });
            return Write::Repeat {
                namespace: event.metadata.namespace.clone().unwrap_or_default(),
                name: event.metadata.name.clone().unwrap_or_default(),
                count,
                message: event.message.clone().unwrap_or_default(),
                last: now,
                event: Box::new(event.clone()),
            };
        }
        let event = self.event(&request, message, now);
        self.sent.insert(key, event.clone());
        Write::Create(event)
    }

    fn take_token(&mut self, object: &str, now: Timestamp) -> bool {
        let bucket = self.buckets.entry(object.to_owned(), (BURST, now));
        let elapsed = now.duration_since(bucket.1).as_secs_f64().max(0.0);
        bucket.0 = (bucket.0 + elapsed * REFILL_PER_SECOND).min(BURST);
        bucket.1 = now;
        if bucket.0 < 1.0 {
            return false;
        }
        bucket.0 -= 1.0;
        true
    }

    fn combine(&mut self, object: &str, request: &EventRequest, now: Timestamp) -> String {
        let exact = (object.to_owned(), request.kind, request.reason.clone(), request.message.clone());
        if self.sent.get_mut(&exact).is_some() {
            return request.message.clone();
        }
        let key = (object.to_owned(), request.kind, request.reason.clone());
        let similar = self.similar.entry(key, (0, now));
        if now.duration_since(similar.1) > SIMILAR_WINDOW {
            *similar = (0, now);
        }
        similar.0 += 1;
        similar.1 = now;
        if similar.0 > SIMILAR_LIMIT {
            return COMBINED.to_owned();
        }
        request.message.clone()
    }

    fn event(&self, request: &EventRequest, message: String, now: Timestamp) -> Event {
        let namespace = match request.object.namespace.as_deref() {
            Some(namespace) if !namespace.is_empty() => namespace.to_owned(),
            _ => "default".to_owned(),
        };
        let object = request.object.name.as_deref().unwrap_or("unknown");
        let mut event = Event {
            involved_object: request.object.clone(),
            type_: Some(request.kind.to_string()),
            reason: Some(request.reason.clone()),
            message: Some(message),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            reporting_component: Some(self.component.clone()),
            reporting_instance: self.host.clone(),
            source: Some(EventSource { component: Some(self.component.clone()), host: self.host.clone() }),
            ..Event::default()
        };
        event.metadata.namespace = Some(namespace);
        event.metadata.name = Some(format!("{object}.{:016x}", now.as_nanosecond() as u64 ^ nonce()));
        event
    }
}

/// Distinguishes events of one object that are recorded within one clock tick.
fn nonce() -> u64 {
    u64::from(rand::random::<u16>())
}

fn identity(object: &ObjectReference) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    [&object.kind, &object.namespace, &object.name, &object.uid, &object.field_path].map(part).join("/")
}

/// A map that forgets its oldest keys.
struct Bounded<K, V> {
    map: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Self { map: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Clone + Eq + std::hash::Hash, V> Bounded<K, V> {
    fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.map.get_mut(key)
    }

    fn insert(&mut self, key: K, value: V) {
        self.entry(key, value);
    }

    fn entry(&mut self, key: K, value: V) -> &mut V {
        if !self.map.contains_key(&key) {
            self.order.push_back(key.clone());
            if self.order.len() > MEMORY
                && let Some(oldest) = self.order.pop_front()
            {
                self.map.remove(&oldest);
            }
        }
        self.map.entry(key).or_insert(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(message: &str) -> EventRequest {
        EventRequest {
            object: ObjectReference {
                kind: Some("Pod".into()),
                name: Some("p".into()),
                namespace: Some("ns".into()),
                ..ObjectReference::default()
            },
            kind: EventType::Normal,
            reason: "Testing".into(),
            message: message.into(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    #[test]
    fn equal_events_become_one_with_a_count() {
        let mut correlator = Correlator::new("test", None);
        let Write::Create(event) = correlator.observe(request("m"), at(0)) else { panic!("not created") };
        match correlator.observe(request("m"), at(5)) {
            Write::Repeat { count, name, last, .. } => {
                assert_eq!((count, last), (2, at(5)));
                assert_eq!(Some(name), event.metadata.name);
            }
            other => panic!("not repeated: {other:?}"),
        }
    }

    #[test]
    fn many_similar_events_are_combined() {
        let mut correlator = Correlator::new("test", None);
        let writes: Vec<Write> =
            (0..13).map(|n| correlator.observe(request(&format!("m{n}")), at(n))).collect();
        let created = writes.iter().filter(|write| matches!(write, Write::Create(_))).count();
        assert_eq!(created, 11);
        assert!(matches!(writes.last(), Some(Write::Repeat { count: 3, .. })));
    }

    #[test]
    fn endless_events_are_cut_off() {
        let mut correlator = Correlator::new("test", None);
        let sent = (0..100)
            .map(|_| correlator.observe(request("m"), at(0)))
            .filter(|write| !matches!(write, Write::Drop))
            .count();
        assert_eq!(sent, 25);
        assert!(!matches!(correlator.observe(request("m"), at(301)), Write::Drop));
    }
}
