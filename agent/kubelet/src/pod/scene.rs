//! A pod and its surroundings for tests of the plan and the status: set up in a few words, then asked.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};

use super::{
    memory::Memory,
    model::PodModel,
    plan::{self, Command, InFlight, Input, OpKey, Plan},
    status,
    view::{ContainerView, PodView, RunState, SandboxView},
};

/// Everything a plan depends on.
pub(crate) struct Scene {
    pub(crate) model: PodModel,
    pub(crate) gone: bool,
    pub(crate) view: PodView,
    pub(crate) memory: Memory,
    pub(crate) in_flight: InFlight,
    pub(crate) network_ready: bool,
    pub(crate) now: Timestamp,
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

impl Scene {
    /// A pod with this spec, volumes ready, nothing running, at second 1000.
    pub(crate) fn new(spec: Value) -> Self {
        Self::with_metadata(json!({}), spec)
    }

    pub(crate) fn with_metadata(metadata: Value, spec: Value) -> Self {
        let mut all = json!({"name": "p", "namespace": "n", "uid": "u", "generation": 1});
        for (key, value) in metadata.as_object().unwrap() {
            all[key] = value.clone();
        }
        let pod = serde_json::from_value(json!({"metadata": all, "spec": spec})).unwrap();
        let memory = Memory { volumes_ready: true, seen_at: at(1000), ..Memory::default() };
        Self {
            model: PodModel::new(Arc::new(pod)),
            gone: false,
            view: PodView::default(),
            memory,
            in_flight: InFlight::new(),
            network_ready: true,
            now: at(1000),
        }
    }

    /// With a sandbox that stands.
    pub(crate) fn sandbox(self, id: &str) -> Self {
        self.any_sandbox(id, true)
    }

    pub(crate) fn any_sandbox(mut self, id: &str, ready: bool) -> Self {
        let attempt = u32::try_from(self.view.sandboxes.len()).unwrap();
        self.view.sandboxes.push(SandboxView {
            id: id.to_owned(),
            attempt,
            ready,
            created_at: i64::from(attempt),
            ips: vec![format!("10.0.0.{attempt}")],
        });
        self.view = self.view.sorted();
        self
    }

    /// With a container in the newest sandbox.
    pub(crate) fn container(mut self, name: &str, state: RunState, exit_code: i32) -> Self {
        let attempt = self.view.latest(name).map_or(0, |c| c.attempt + 1);
        let ended = state == RunState::Exited;
        self.view.containers.push(ContainerView {
            id: format!("{name}-{attempt}"),
            name: name.to_owned(),
            sandbox: self.view.sandboxes[0].id.clone(),
            attempt,
            state,
            created_at: i64::from(attempt),
            started_at: Some(at(900)),
            finished_at: ended.then(|| at(990)),
            exit_code,
            reason: String::new(),
            message: String::new(),
            image: "img".to_owned(),
            image_id: "sha256:1".to_owned(),
            hash: String::new(),
        });
        self.view = self.view.sorted();
        self
    }

    pub(crate) fn running(self, name: &str) -> Self {
        self.container(name, RunState::Running, 0)
    }

    pub(crate) fn exited(self, name: &str, code: i32) -> Self {
        self.container(name, RunState::Exited, code)
    }

    pub(crate) fn busy(mut self, key: OpKey, grace: Option<i64>) -> Self {
        self.in_flight.insert(key, grace);
        self
    }

    pub(crate) fn input(&self) -> Input<'_> {
        Input {
            model: &self.model,
            gone: self.gone,
            view: &self.view,
            memory: &self.memory,
            in_flight: &self.in_flight,
            network_ready: self.network_ready,
            now: self.now,
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        plan::plan(&self.input())
    }

    pub(crate) fn status(&self) -> PodStatus {
        status::status(&self.input(), &["192.0.2.1".to_owned()])
    }

    /// Names of containers the plan starts.
    pub(crate) fn starts(&self) -> Vec<String> {
        let name = |c: &Command| match c {
            Command::StartContainer { name, .. } => Some(name.clone()),
            _ => None,
        };
        self.plan().commands.iter().filter_map(name).collect()
    }

    /// Ids and graces of containers the plan stops.
    pub(crate) fn stops(&self) -> Vec<(String, i64)> {
        let stop = |c: &Command| match c {
            Command::StopContainer { id, grace, .. } => Some((id.clone(), *grace)),
            _ => None,
        };
        self.plan().commands.iter().filter_map(stop).collect()
    }
}
