//! Events about pods and the node, as `kubectl describe` shows them: repeats are counted, floods are cut.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    pod::model::PodId,
    session::{Session, bounded},
};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// As expected.
    Normal,
    /// Something to look at.
    Warning,
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub(crate) struct Happening {
    about: ObjectReference,
    severity: Severity,
    reason: String,
    message: String,
}

/// Takes events; never blocks, drops when the API is away for long.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    sender: mpsc::Sender<Happening>,
}

const QUEUE: usize = 512;
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 60.0;
const REMEMBER: Duration = Duration::from_secs(600);

impl Recorder {
    /// A recorder and the task that sends what it takes.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Happening>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { sender }, receiver)
    }

    /// An event about a pod, or about one of its containers.
    pub(crate) fn pod(
        &self,
        id: &PodId,
        container: Option<&str>,
        severity: Severity,
        reason: &str,
        message: String,
    ) {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(id.namespace.clone()),
            name: Some(id.name.clone()),
            uid: Some(id.uid.clone()),
            field_path: container.map(|c| format!("spec.containers{{{c}}}")),
            ..ObjectReference::default()
        };
        self.send(about, severity, reason, message);
    }

    /// An event about the node.
    pub(crate) fn node(&self, node: &str, severity: Severity, reason: &str, message: String) {
        let about = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            uid: Some(node.to_owned()),
            ..ObjectReference::default()
        };
        self.send(about, severity, reason, message);
    }

    fn send(&self, about: ObjectReference, severity: Severity, reason: &str, message: String) {
        let happening = Happening { about, severity, reason: reason.to_owned(), message };
        if let Err(error) = self.sender.try_send(happening) {
            tracing::debug!(%error, "event dropped");
        }
    }
}

#[derive(Debug)]
struct Known {
    name: String,
    count: i32,
    seen: Instant,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// Sends what a recorder took, as component `kubelet` on `node`.
#[derive(Debug)]
pub(crate) struct Sender {
    session: std::sync::Arc<Session>,
    node: String,
    known: HashMap<String, Known>,
    buckets: HashMap<String, Bucket>,
}

impl Sender {
    /// A sender for the node of that name.
    pub(crate) fn new(session: std::sync::Arc<Session>, node: String) -> Self {
        Self { session, node, known: HashMap::new(), buckets: HashMap::new() }
    }

    /// Sends until the recorder is gone.
    pub(crate) async fn run(mut self, mut receiver: mpsc::Receiver<Happening>) {
        while let Some(happening) = receiver.recv().await {
            self.forget_old();
            if self.may_send(&happening) {
                self.one(happening).await;
            }
        }
    }

    fn forget_old(&mut self) {
        self.known.retain(|_, k| k.seen.elapsed() < REMEMBER);
        self.buckets.retain(|_, b| b.filled.elapsed() < REMEMBER * 3);
    }

    fn may_send(&mut self, happening: &Happening) -> bool {
        let key = happening.about.uid.clone().unwrap_or_default();
        let bucket = self.buckets.entry(key).or_insert(Bucket { tokens: BURST, filled: Instant::now() });
        bucket.tokens =
            (bucket.tokens + bucket.filled.elapsed().as_secs_f64() * REFILL_PER_SECOND).min(BURST);
        bucket.filled = Instant::now();
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    async fn one(&mut self, happening: Happening) {
        let key = format!("{:?}/{}/{}", happening.about, happening.reason, happening.message);
        let namespace = happening.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(self.session.client(), &namespace);
        if let Some(known) = self.known.get_mut(&key) {
            known.count += 1;
            known.seen = Instant::now();
            let patch = json!({"count": known.count, "lastTimestamp": Time(Timestamp::now())});
            let name = known.name.clone();
            match bounded(api.patch(&name, &PatchParams::default(), &Patch::Merge(patch))).await {
                Ok(_) => return,
                Err(error) => tracing::debug!(%error, "event could not be counted"),
            }
        }
        let event = self.event(&happening, &namespace);
        let name = event.metadata.name.clone().unwrap_or_default();
        match bounded(api.create(&PostParams::default(), &event)).await {
            Ok(_) => {
                self.known.insert(key, Known { name, count: 1, seen: Instant::now() });
            }
            Err(error) => tracing::debug!(%error, reason = happening.reason, "event lost"),
        }
    }

    fn event(&self, happening: &Happening, namespace: &str) -> Event {
        let now = Timestamp::now();
        let object = happening.about.name.clone().unwrap_or_default();
        let severity = if happening.severity == Severity::Warning { "Warning" } else { "Normal" };
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{object}.{:016x}", now.as_nanosecond())),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: happening.about.clone(),
            reason: Some(happening.reason.clone()),
            message: Some(happening.message.chars().take(1024).collect()),
            type_: Some(severity.to_owned()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource {
                component: Some("kubelet".to_owned()),
                host: Some(self.node.clone()),
            }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.node.clone()),
            ..Event::default()
        }
    }
}
