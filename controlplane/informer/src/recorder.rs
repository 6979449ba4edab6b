//! Sends events to the API without ever holding up the caller.
//!
//! [`Recorder::publish`] puts a request into a bounded channel; [`RecorderTask::run`] correlates and writes. When the
//! channel is full the event is dropped: events are best effort, work is not.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, ObjectReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;

use crate::correlate::{Correlator, EventRequest, EventType, Write};

const BACKLOG: usize = 1024;

/// A cheap handle to publish events with.
#[derive(Clone)]
pub struct Recorder {
    requests: mpsc::Sender<EventRequest>,
}

/// The writing half of a [`Recorder`].
pub struct RecorderTask {
    requests: mpsc::Receiver<EventRequest>,
    correlator: Correlator,
    client: Client,
}

impl Recorder {
    /// A recorder for one component, and the task that writes its events.
    pub fn new(client: Client, component: &str, host: Option<String>) -> (Self, RecorderTask) {
        let (sender, requests) = mpsc::channel(BACKLOG);
        let task = RecorderTask { requests, correlator: Correlator::new(component, host), client };
        (Self { requests: sender }, task)
    }

    /// Tells something about `object`.
    pub fn publish<K>(&self, object: &K, kind: EventType, reason: &str, message: impl Into<String>)
    where
        K: Resource<DynamicType = ()>,
    {
        self.publish_about(object.object_ref(&()), kind, reason, message);
    }

    /// Tells something about an object known by reference.
    pub fn publish_about(
        &self,
        object: ObjectReference,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let request = EventRequest { object, kind, reason: reason.into(), message: message.into() };
        if self.requests.try_send(request).is_err() {
            tracing::debug!(reason, "event dropped: the recorder is behind or has stopped");
        }
    }
}

impl RecorderTask {
    /// Writes events until every [`Recorder`] is gone.
    pub async fn run(mut self) {
        while let Some(request) = self.requests.recv().await {
            let reason = request.reason.clone();
            let write = self.correlator.observe(request, Timestamp::now());
            if let Err(error) = self.write(write).await {
                tracing::debug!(%reason, %error, "event not recorded");
            }
        }
    }

    async fn write(&self, write: Write) -> Result<(), kube::Error> {
        match write {
            Write::Create(event) => self.create(event).await,
            Write::Repeat { namespace, name, count, message, last, event } => {
                let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
                let patch = json!({"count": count, "message": message, "lastTimestamp": last.to_string()});
                match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                    Err(kube::Error::Api(status)) if status.is_not_found() => self.create(*event).await,
                    other => other.map(drop),
                }
            }
            Write::Drop => Ok(()),
        }
    }

    async fn create(&self, mut event: Event) -> Result<(), kube::Error> {
        event.metadata.resource_version = None;
        let namespace = event.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        api.create(&PostParams::default(), &event).await.map(drop)
    }
}
