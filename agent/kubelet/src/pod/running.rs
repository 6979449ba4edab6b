//! The plan of a pod that is to run: volumes, sandbox, init containers in order, then the rest.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    admission,
    memory::Verdict,
    model::{Role, Unit},
    outcome,
    plan::{Command, Input, OpKey, Plan, StopReason},
    view::{ContainerView, RunState},
};

/// Where a container stands after [`tend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Running and past its startup probe.
    Started,
    /// Running, not yet past its startup probe.
    Young,
    /// Ended for good, well.
    Done,
    /// Ended for good, badly.
    Failed,
    /// About to be started, now or after a wait.
    Pending,
}

pub(super) fn plan(input: &Input<'_>, plan: &mut Plan) {
    if let Some(verdict) = admission::refusal(input.model).or_else(|| deadline(input, plan)) {
        plan.push(Command::Fail(verdict));
        return;
    }
    if !volumes(input, plan) {
        return;
    }
    let Some(sandbox) = input.view.sandbox() else {
        replace_sandbox(input, plan);
        return;
    };
    containers(input, &sandbox.id, plan);
}

fn deadline(input: &Input<'_>, plan: &mut Plan) -> Option<Verdict> {
    let seconds = input.model.spec()?.active_deadline_seconds?;
    let started = input.model.pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
    let end =
        started.unwrap_or(input.memory.seen_at) + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    if end > input.now {
        plan.wake_at(end);
        return None;
    }
    Some(Verdict {
        reason: "DeadlineExceeded".to_owned(),
        message: "Pod was active on the node longer than the specified deadline".to_owned(),
    })
}

/// Whether volumes are in place; sets them up, and refreshes them when it is time.
fn volumes(input: &Input<'_>, plan: &mut Plan) -> bool {
    let memory = input.memory;
    if !memory.volumes_ready {
        if !input.busy(&OpKey::Volumes) {
            when_due(input, memory.volumes.due(), plan, |plan| plan.push(Command::PrepareVolumes));
        }
        return false;
    }
    if let Some(at) = memory.refresh_at.filter(|_| !input.busy(&OpKey::Refresh)) {
        when_due(input, Some(at), plan, |plan| plan.push(Command::RefreshVolumes));
    }
    true
}

fn when_due(input: &Input<'_>, due: Option<Timestamp>, plan: &mut Plan, act: impl FnOnce(&mut Plan)) {
    match due.filter(|due| *due > input.now) {
        Some(due) => plan.wake_at(due),
        None => act(plan),
    }
}

/// No sandbox stands: stop what is left of the old ones, then make a new one.
fn replace_sandbox(input: &Input<'_>, plan: &mut Plan) {
    let mut alive = false;
    for container in input.view.alive() {
        alive = true;
        input.stop(plan, &container.name, &container.id, input.model.grace(), StopReason::SandboxLost);
    }
    let network = input.network_ready || input.model.host_network();
    if alive || input.busy(&OpKey::Sandbox) || !network {
        return;
    }
    let attempt = input.view.sandboxes.iter().map(|s| s.attempt + 1).max().unwrap_or(0);
    let stale = input.view.sandboxes.iter().map(|s| s.id.clone()).collect();
    when_due(input, input.memory.sandbox.due(), plan, |plan| {
        plan.push(Command::CreateSandbox { attempt, stale });
    });
}

fn containers(input: &Input<'_>, sandbox: &str, plan: &mut Plan) {
    let mut tending = Tending { input, sandbox, plan, started_one: input.starting() };
    let begun = outcome::mains_begun(input.model, input.view);
    for unit in input.model.units.iter().filter(|u| matches!(u.role, Role::Init | Role::Sidecar)) {
        if begun {
            if unit.role == Role::Sidecar {
                tending.tend(unit);
            }
            continue;
        }
        let passed = match tending.tend(unit) {
            Standing::Started => unit.role == Role::Sidecar,
            Standing::Done => true,
            Standing::Young | Standing::Failed | Standing::Pending => false,
        };
        if !passed {
            return;
        }
    }
    for unit in input.model.units.iter().filter(|u| matches!(u.role, Role::Main | Role::Ephemeral)) {
        tending.tend(unit);
    }
}

/// One walk over the containers; at most one start is given, so that they start in order.
struct Tending<'a, 'p> {
    input: &'a Input<'a>,
    sandbox: &'a str,
    plan: &'p mut Plan,
    started_one: bool,
}

impl Tending<'_, '_> {
    fn tend(&mut self, unit: &Unit) -> Standing {
        if self.input.busy(&OpKey::Start(unit.name().to_owned())) {
            return Standing::Pending;
        }
        let Some(container) = self.input.view.latest(unit.name()) else {
            return self.start(unit, None, None);
        };
        match container.state {
            RunState::Running => self.tend_running(unit, container),
            RunState::Unknown => self.stop(unit, container, StopReason::Unknown),
            RunState::Created if container.sandbox == self.sandbox => self.start(unit, Some(container), None),
            RunState::Created => self.start(unit, None, None),
            RunState::Exited => self.tend_exited(unit, container),
        }
    }

    fn tend_running(&mut self, unit: &Unit, container: &ContainerView) -> Standing {
        if let Some(failed) = self.input.memory.probes.get(&container.id).and_then(|p| p.failed.as_ref()) {
            let grace = failed.grace.unwrap_or_else(|| self.input.model.grace());
            let reason = StopReason::Probe(failed.kind);
            self.input.stop(self.plan, unit.name(), &container.id, grace, reason);
            return Standing::Pending;
        }
        let changed = !container.hash.is_empty() && container.hash != unit.hash;
        if changed && unit.role != Role::Ephemeral {
            return self.stop(unit, container, StopReason::Changed);
        }
        if self.input.memory.is_started(unit, container) { Standing::Started } else { Standing::Young }
    }

    fn stop(&mut self, unit: &Unit, container: &ContainerView, reason: StopReason) -> Standing {
        self.input.stop(self.plan, unit.name(), &container.id, self.input.model.grace(), reason);
        Standing::Pending
    }

    fn tend_exited(&mut self, unit: &Unit, container: &ContainerView) -> Standing {
        let repeat_init = unit.role == Role::Init && container.sandbox != self.sandbox;
        if repeat_init {
            return self.start(unit, None, None);
        }
        if outcome::restarts(self.input.model.policy, unit.role, container.exit_code) {
            return self.start(unit, None, Some(container));
        }
        if container.exit_code == 0 { Standing::Done } else { Standing::Failed }
    }

    /// Starts the unit when neither a failure nor the crash loop holds it back and nothing else is starting.
    fn start(
        &mut self,
        unit: &Unit,
        unstarted: Option<&ContainerView>,
        exited: Option<&ContainerView>,
    ) -> Standing {
        let memory = self.input.memory.containers.get(unit.name());
        let failure = memory.and_then(|m| m.failure.as_ref());
        if let Some(failure) = failure.filter(|f| f.due > self.input.now) {
            self.plan.wake_at(failure.due);
            if failure.is_pull() && failure.backs_off_at() > self.input.now {
                self.plan.wake_at(failure.backs_off_at());
            }
            return Standing::Pending;
        }
        let held = memory.zip(exited).and_then(|(m, c)| m.crash.until(c.ended_at()));
        if let Some(until) = held.filter(|until| *until > self.input.now) {
            self.plan.wake_at(until);
            return Standing::Pending;
        }
        if self.started_one {
            return Standing::Pending;
        }
        self.started_one = true;
        let latest = self.input.view.latest(unit.name());
        let attempt = match (unstarted, latest) {
            (Some(container), _) => container.attempt,
            (None, Some(container)) => container.attempt + 1,
            (None, None) => memory.map_or(0, |m| m.floor),
        };
        self.plan.push(Command::StartContainer {
            name: unit.name().to_owned(),
            attempt,
            sandbox: self.sandbox.to_owned(),
            remove: unstarted.map(|c| c.id.clone()),
        });
        Standing::Pending
    }
}
