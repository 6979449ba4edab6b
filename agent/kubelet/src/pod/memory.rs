//! What the kubelet remembers of a pod between two looks: failures and their backoff, probe results, verdicts.
//! Everything here may be lost by a restart without harm.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PodStatus, Probe};

use super::{
    backoff::{Backoff, retry_delay},
    model::{PodModel, Unit},
    view::ContainerView,
};

/// A try that failed, and when the next is due.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Retry {
    failures: u32,
    due: Option<Timestamp>,
}

impl Retry {
    /// Whether a try may be made now.
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        self.due.is_none_or(|due| due <= now)
    }

    /// When the next try is due.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Counts a failure; no wait is longer than `longest`.
    pub(crate) fn fail(&mut self, now: Timestamp, longest: Duration) {
        self.due = Some(now + retry_delay(self.failures, longest));
        self.failures += 1;
    }
}

/// Why a container could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartFailure {
    /// The waiting reason users know, e.g. `ErrImagePull`.
    pub(crate) reason: String,
    /// The whole story.
    pub(crate) message: String,
    /// When it happened.
    pub(crate) at: Timestamp,
    /// When the next try is due.
    pub(crate) due: Timestamp,
}

/// How long a fresh pull error is shown before it becomes a back-off.
const FRESH: Duration = Duration::from_secs(4);

impl StartFailure {
    /// Whether the failure was an image pull, which has a name of its own while held back.
    pub(crate) fn is_pull(&self) -> bool {
        self.reason == "ErrImagePull"
    }

    /// When a pull error starts to show as a back-off.
    pub(crate) fn backs_off_at(&self) -> Timestamp {
        self.at + FRESH
    }
}

/// Per container.
#[derive(Debug, Clone, Default)]
pub(crate) struct ContainerMemory {
    /// The crash loop's backoff.
    pub(crate) crash: Backoff,
    /// The image pull's backoff.
    pub(crate) pull: Backoff,
    /// The last start's failure; none after a success.
    pub(crate) failure: Option<StartFailure>,
    /// Runs known to the API before this kubelet looked: the next attempt is at least this.
    pub(crate) floor: u32,
}

/// What probes say of one running container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProbeState {
    /// The startup probe passed.
    pub(crate) started: bool,
    /// The readiness probe passes.
    pub(crate) ready: bool,
    /// The startup or liveness probe gave up: the container is to be restarted.
    pub(crate) failed: Option<ProbeFailure>,
}

/// A probe that gave up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProbeFailure {
    /// `liveness` or `startup`.
    pub(crate) kind: &'static str,
    /// The probe's own grace period.
    pub(crate) grace: Option<i64>,
}

/// Why the pod is over although its containers might go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The status reason, e.g. `DeadlineExceeded`.
    pub(crate) reason: String,
    /// The status message.
    pub(crate) message: String,
}

/// How much of the pod has been taken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum TornDown {
    /// Nothing.
    #[default]
    Nothing,
    /// Sandboxes stopped, volumes and cgroups gone, containers kept for their logs.
    Stopped,
    /// All of it.
    Removed,
}

/// Per pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    /// When the kubelet first saw the pod.
    pub(crate) seen_at: Timestamp,
    /// By container name.
    pub(crate) containers: BTreeMap<String, ContainerMemory>,
    /// By container id.
    pub(crate) probes: BTreeMap<String, ProbeState>,
    /// Whether all volumes are in place.
    pub(crate) volumes_ready: bool,
    /// Tries to set volumes up.
    pub(crate) volumes: Retry,
    /// When projected files are to be read again.
    pub(crate) refresh_at: Option<Timestamp>,
    /// Tries to make a sandbox.
    pub(crate) sandbox: Retry,
    /// Tries to take the pod down.
    pub(crate) teardown: Retry,
    /// Tries to tell the API that the pod is gone.
    pub(crate) finalize: Retry,
    /// The pod is over for a reason of its own.
    pub(crate) verdict: Option<Verdict>,
    /// How much has been taken down.
    pub(crate) torn: TornDown,
    /// The status after the last container ended.
    pub(crate) last_status: Option<PodStatus>,
    /// The API no longer has the pod.
    pub(crate) finalized: bool,
}

impl Memory {
    /// What the API's status tells a kubelet that has just started.
    pub(crate) fn recall(model: &PodModel, now: Timestamp) -> Self {
        let mut memory = Self { seen_at: now, ..Self::default() };
        let Some(status) = &model.pod.status else { return memory };
        let known =
            status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
        for container in known.filter(|c| c.container_id.as_deref().is_some_and(|id| !id.is_empty())) {
            let floor = u32::try_from(container.restart_count).unwrap_or(0) + 1;
            memory.container(&container.name).floor = floor;
        }
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            memory.last_status = Some(status.clone());
        }
        memory
    }

    /// The memory of one container, made when missing.
    pub(crate) fn container(&mut self, name: &str) -> &mut ContainerMemory {
        self.containers.entry(name.to_owned()).or_default()
    }

    /// The start failure of a container that is still being held back or retried.
    pub(crate) fn failure(&self, name: &str) -> Option<&StartFailure> {
        self.containers.get(name)?.failure.as_ref()
    }

    /// Whether a running container has passed its startup probe.
    pub(crate) fn is_started(&self, unit: &Unit, container: &ContainerView) -> bool {
        container.is_alive()
            && (probe(unit.container.startup_probe.as_ref()).is_none()
                || self.probes.get(&container.id).is_some_and(|p| p.started))
    }

    /// Whether a running container takes traffic.
    pub(crate) fn is_ready(&self, unit: &Unit, container: &ContainerView) -> bool {
        self.is_started(unit, container)
            && (probe(unit.container.readiness_probe.as_ref()).is_none()
                || self.probes.get(&container.id).is_some_and(|p| p.ready))
    }

    /// Records the failure of a start and when to try again.
    pub(crate) fn start_failed(&mut self, name: &str, reason: &str, message: String, now: Timestamp) {
        let is_pull = reason == "ErrImagePull";
        let memory = self.container(name);
        let due = if is_pull {
            memory.pull.advance(now, now);
            now + memory.pull.delay()
        } else {
            now + Duration::from_secs(10)
        };
        memory.failure = Some(StartFailure { reason: reason.to_owned(), message, at: now, due });
    }

    /// Forgets probe results of containers that are gone.
    pub(crate) fn retain_probes(&mut self, alive: impl Fn(&str) -> bool) {
        self.probes.retain(|id, _| alive(id));
    }
}

fn probe(probe: Option<&Probe>) -> Option<&Probe> {
    probe.filter(|p| p.exec.is_some() || p.http_get.is_some() || p.tcp_socket.is_some() || p.grpc.is_some())
}
