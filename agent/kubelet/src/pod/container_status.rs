//! The status of one container as users see it. Pure.

use k8s_openapi::{
    api::core::v1::{
        ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    memory::StartFailure,
    model::{Role, Unit},
    outcome,
    plan::{Input, OpKey},
    view::{ContainerView, RunState},
};

/// The status of `unit`; `ending` when the pod will not start containers any more.
pub(crate) fn container_status(
    input: &Input<'_>,
    unit: &Unit,
    initialized: bool,
    ending: bool,
) -> ContainerStatus {
    let latest = input.view.latest(unit.name());
    let (state, last_state) = states(input, unit, latest, initialized, ending);
    let started = latest.is_some_and(|c| input.memory.is_started(unit, c));
    let ready = match (unit.role, latest) {
        (Role::Init, Some(c)) => c.state == RunState::Exited && c.exit_code == 0,
        (_, Some(c)) => input.memory.is_ready(unit, c),
        (_, None) => false,
    };
    let floor = input.memory.containers.get(unit.name()).map_or(0, |m| m.floor.saturating_sub(1));
    ContainerStatus {
        name: unit.name().to_owned(),
        state: Some(state),
        last_state: Some(last_state),
        ready,
        started: Some(started),
        restart_count: i32::try_from(latest.map_or(floor, |c| c.attempt)).unwrap_or(i32::MAX),
        image: latest.map_or_else(|| unit.container.image.clone().unwrap_or_default(), |c| c.image.clone()),
        image_id: latest.map(|c| c.image_id.clone()).unwrap_or_default(),
        container_id: latest.map(|c| container_id(&c.id)),
        ..ContainerStatus::default()
    }
}

/// A container's id as the API writes it.
pub(crate) fn container_id(id: &str) -> String {
    format!("containerd://{id}")
}

fn states(
    input: &Input<'_>,
    unit: &Unit,
    latest: Option<&ContainerView>,
    initialized: bool,
    ending: bool,
) -> (ContainerState, ContainerState) {
    let previous = || {
        input
            .view
            .previous(unit.name())
            .filter(|c| c.state == RunState::Exited)
            .map(terminated)
            .unwrap_or_default()
    };
    let failure = input.memory.failure(unit.name()).filter(|_| !ending);
    match latest {
        Some(c) if c.is_alive() => (running(c), previous()),
        Some(c) if c.state == RunState::Exited => match waiting_after(input, unit, c, failure, ending) {
            Some(waiting) => (waiting, terminated(c)),
            None => (terminated(c), previous()),
        },
        Some(_) => {
            (failure.map_or_else(|| waiting("ContainerCreating", ""), |f| failed(input, unit, f)), previous())
        }
        None => {
            let default =
                if !initialized && unit.role == Role::Main { "PodInitializing" } else { "ContainerCreating" };
            let state = failure.map_or_else(|| waiting(default, ""), |f| failed(input, unit, f));
            (state, ContainerState::default())
        }
    }
}

/// What an exited container waits for, if it will run again and is held back.
fn waiting_after(
    input: &Input<'_>,
    unit: &Unit,
    exited: &ContainerView,
    failure: Option<&StartFailure>,
    ending: bool,
) -> Option<ContainerState> {
    if ending || input.busy(&OpKey::Start(unit.name().to_owned())) {
        return None;
    }
    if !outcome::restarts(input.model.policy, unit.role, exited.exit_code) {
        return None;
    }
    if let Some(failure) = failure {
        return Some(failed(input, unit, failure));
    }
    let memory = input.memory.containers.get(unit.name())?;
    memory.crash.until(exited.ended_at()).filter(|until| *until > input.now)?;
    let message = format!(
        "back-off {} restarting failed container={} pod={}",
        human(memory.crash.delay()),
        unit.name(),
        input.model.id
    );
    Some(waiting("CrashLoopBackOff", &message))
}

/// "10s", "1m20s", as users know durations.
fn human(delay: std::time::Duration) -> String {
    match (delay.as_secs() / 60, delay.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

fn failed(input: &Input<'_>, unit: &Unit, failure: &StartFailure) -> ContainerState {
    if failure.is_pull() && failure.backs_off_at() <= input.now {
        let image = unit.container.image.as_deref().unwrap_or_default();
        let message = format!("Back-off pulling image \"{image}\": {}: {}", failure.reason, failure.message);
        return waiting("ImagePullBackOff", &message);
    }
    waiting(&failure.reason, &failure.message)
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let message = (!message.is_empty()).then(|| message.to_owned());
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    }
}

fn running(container: &ContainerView) -> ContainerState {
    let started_at = container.started_at.map(super::conditions::whole_second);
    ContainerState { running: Some(ContainerStateRunning { started_at }), ..ContainerState::default() }
}

fn terminated(container: &ContainerView) -> ContainerState {
    let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    let time = |t: Option<jiff::Timestamp>| -> Option<Time> { t.map(super::conditions::whole_second) };
    let reason = match container.reason.as_str() {
        "" if container.exit_code == 0 => Some("Completed".to_owned()),
        "" => Some("Error".to_owned()),
        reason => text(reason),
    };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(container_id(&container.id)),
            exit_code: container.exit_code,
            reason,
            message: text(&container.message),
            started_at: time(container.started_at),
            finished_at: time(container.finished_at),
            signal: None,
        }),
        ..ContainerState::default()
    }
}
