//! The probes of one pod's running containers: a task each, results to the pod's worker.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Probe;
use rand::Rng;
use tokio::{sync::mpsc, task::AbortHandle};

use super::{
    attempt::{self, Target},
    math::{ProbeKind, Tracker},
};
use crate::{
    cri::Cri,
    events::{Recorder, Severity},
    pod::{
        memory::{Memory, ProbeFailure},
        model::{PodModel, Role, Unit},
        view::PodView,
    },
};

/// A verdict that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    id: String,
    kind: ProbeKind,
    healthy: bool,
    grace: Option<i64>,
}

impl Change {
    /// Writes the verdict where plan and status look.
    pub(crate) fn apply(self, memory: &mut Memory) {
        let state = memory.probes.entry(self.id).or_default();
        match (self.kind, self.healthy) {
            (ProbeKind::Startup, true) => state.started = true,
            (ProbeKind::Readiness, ready) => state.ready = ready,
            (ProbeKind::Startup, false) => {
                state.failed = Some(ProbeFailure { kind: "startup", grace: self.grace })
            }
            (ProbeKind::Liveness, false) => {
                state.failed = Some(ProbeFailure { kind: "liveness", grace: self.grace })
            }
            (ProbeKind::Liveness, true) => {}
        }
    }
}

/// The tasks.
#[derive(Debug)]
pub(crate) struct Probes {
    cri: Cri,
    events: Recorder,
    sender: mpsc::Sender<Change>,
    tasks: BTreeMap<(String, ProbeKind), AbortHandle>,
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.tasks.values().for_each(AbortHandle::abort);
    }
}

impl Probes {
    /// No tasks yet; changes go to `sender`.
    pub(crate) fn new(cri: Cri, events: Recorder, sender: mpsc::Sender<Change>) -> Self {
        Self { cri, events, sender, tasks: BTreeMap::new() }
    }

    /// Starts and ends tasks so that exactly the right probes run.
    pub(crate) fn sync(
        &mut self,
        model: &Arc<PodModel>,
        view: &PodView,
        memory: &Memory,
        node_ip: &str,
        ending: bool,
    ) {
        let mut wanted: BTreeMap<(String, ProbeKind), (&Unit, Probe)> = BTreeMap::new();
        for unit in model.units.iter().filter(|u| u.role != Role::Ephemeral) {
            let Some(container) = view.latest(unit.name()).filter(|c| c.is_alive()) else { continue };
            for kind in due(unit, memory.is_started(unit, container), ending) {
                if let Some(probe) = probe_of(unit, kind) {
                    wanted.insert((container.id.clone(), kind), (unit, probe.clone()));
                }
            }
        }
        self.tasks.retain(|key, task| {
            let keep = wanted.contains_key(key);
            if !keep {
                task.abort();
            }
            keep
        });
        let ip = match view.sandbox().and_then(|s| s.ips.first()) {
            Some(ip) if !model.host_network() => ip.clone(),
            _ => node_ip.to_owned(),
        };
        for (key, (unit, probe)) in wanted {
            if self.tasks.contains_key(&key) {
                continue;
            }
            let task = Task {
                cri: self.cri.clone(),
                events: self.events.clone(),
                sender: self.sender.clone(),
                model: model.clone(),
                target: Target { id: key.0.clone(), ip: ip.clone(), container: unit.container.clone() },
                kind: key.1,
                probe,
            };
            self.tasks.insert(key, tokio::spawn(task.run()).abort_handle());
        }
    }
}

/// The probes that run now: startup first, the others once it passed; a pod that ends is only asked whether it
/// is ready.
fn due(unit: &Unit, started: bool, ending: bool) -> Vec<ProbeKind> {
    match (unit.container.startup_probe.is_some() && !started, ending) {
        (true, false) => vec![ProbeKind::Startup],
        (true, true) => Vec::new(),
        (false, false) => vec![ProbeKind::Readiness, ProbeKind::Liveness],
        (false, true) => vec![ProbeKind::Readiness],
    }
}

fn probe_of(unit: &Unit, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => unit.container.startup_probe.as_ref(),
        ProbeKind::Readiness => unit.container.readiness_probe.as_ref(),
        ProbeKind::Liveness => unit.container.liveness_probe.as_ref(),
    }
}

struct Task {
    cri: Cri,
    events: Recorder,
    sender: mpsc::Sender<Change>,
    model: Arc<PodModel>,
    target: Target,
    kind: ProbeKind,
    probe: Probe,
}

impl Task {
    async fn run(self) {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default))
        };
        let period = seconds(self.probe.period_seconds, 10).max(Duration::from_secs(1));
        tokio::time::sleep(seconds(self.probe.initial_delay_seconds, 0)).await;
        let mut tracker = Tracker::new(&self.probe);
        let mut interval = tokio::time::interval(period);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let result = attempt::probe(&self.cri, &self.target, &self.probe).await;
            if let Err(why) = &result {
                self.report(why);
            }
            if let Some(healthy) = tracker.observe(result.is_ok()) {
                let grace = self.probe.termination_grace_period_seconds;
                let change = Change { id: self.target.id.clone(), kind: self.kind, healthy, grace };
                let is_over = !healthy && self.kind != ProbeKind::Readiness;
                if self.sender.send(change).await.is_err() || is_over {
                    return;
                }
            }
            // Pods that start together should not be asked together for ever.
            let jitter = rand::rng().random_range(0..50);
            tokio::time::sleep(Duration::from_millis(jitter)).await;
        }
    }

    fn report(&self, why: &str) {
        let message = format!("{} probe failed: {why}", self.kind.title());
        let container = self.target.container.name.as_str();
        self.events.pod(&self.model.id, Some(container), Severity::Warning, "Unhealthy", message);
    }
}
