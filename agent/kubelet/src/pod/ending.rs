//! The plan of a pod that is to end: stop containers (sidecars last), keep the last status, take the pod down,
//! tell the API.

use std::time::Duration;

use super::{
    memory::TornDown,
    model::Role,
    outcome,
    plan::{Command, Input, OpKey, Plan, StopReason},
};

/// Why the pod ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The API has it no more.
    Gone,
    /// The API asked for its deletion.
    Deleted,
    /// A verdict, e.g. a deadline or an eviction.
    Failed,
    /// Its containers have run their course.
    Completed,
}

/// Why the pod ends, if it does.
pub(crate) fn cause(input: &Input<'_>) -> Option<Cause> {
    if input.gone {
        Some(Cause::Gone)
    } else if input.model.deletion().is_some() {
        Some(Cause::Deleted)
    } else if input.memory.verdict.is_some() {
        Some(Cause::Failed)
    } else if input.memory.last_status.is_some() || outcome::outcome(input.model, input.view).is_some() {
        Some(Cause::Completed)
    } else {
        None
    }
}

pub(super) fn plan(input: &Input<'_>, cause: Cause, plan: &mut Plan) {
    // What an abandoned start left behind is only known after another look.
    if abort_starts(input, plan) | stop_containers(input, cause, plan) {
        return;
    }
    if input.memory.last_status.is_none() && input.memory.torn == TornDown::Nothing {
        plan.push(Command::Freeze);
        return;
    }
    let removes = matches!(cause, Cause::Gone | Cause::Deleted);
    let wanted = if removes { TornDown::Removed } else { TornDown::Stopped };
    if input.memory.torn < wanted {
        if !input.busy(&OpKey::Teardown) {
            retry(input, &input.memory.teardown, plan, Command::Teardown { remove: removes });
        }
        return;
    }
    match cause {
        Cause::Gone => plan.push(Command::Forget),
        Cause::Deleted if input.memory.finalized => plan.push(Command::Forget),
        Cause::Deleted if !input.busy(&OpKey::Finalize) => {
            retry(input, &input.memory.finalize, plan, Command::Finalize);
        }
        Cause::Deleted | Cause::Failed | Cause::Completed => {}
    }
}

fn retry(input: &Input<'_>, retry: &super::memory::Retry, plan: &mut Plan, command: Command) {
    match retry.due().filter(|_| !retry.is_due(input.now)) {
        Some(due) => plan.wake_at(due),
        None => plan.push(command),
    }
}

/// Gives up what is being started. Whether anything was.
fn abort_starts(input: &Input<'_>, plan: &mut Plan) -> bool {
    let before = plan.commands.len();
    for key in input.in_flight.keys() {
        if matches!(key, OpKey::Start(_) | OpKey::Sandbox | OpKey::Volumes | OpKey::Refresh) {
            plan.push(Command::Abort(key.clone()));
        }
    }
    plan.commands.len() > before
}

/// Stops what is alive: sidecars only when nothing else is, the last one first. Whether anything still is.
fn stop_containers(input: &Input<'_>, cause: Cause, plan: &mut Plan) -> bool {
    let grace = grace(input, cause);
    let rank = |name: &str| {
        let position = input.model.units.iter().position(|u| u.name() == name && u.role == Role::Sidecar);
        position.map_or(usize::MAX, |p| p)
    };
    let alive: Vec<_> = input.view.alive().map(|c| (rank(&c.name), c)).collect();
    let Some(first) = alive.iter().map(|(rank, _)| *rank).max() else { return false };
    for (_, container) in alive.iter().filter(|(rank, _)| *rank == first) {
        input.stop(plan, &container.name, &container.id, grace, StopReason::PodEnds);
    }
    true
}

/// Seconds until the final signal: what the API granted, less what has passed of it.
fn grace(input: &Input<'_>, cause: Cause) -> i64 {
    let granted = input.model.pod.metadata.deletion_grace_period_seconds;
    let full = granted.unwrap_or_else(|| input.model.grace());
    let left = match (cause, input.model.deletion()) {
        (Cause::Deleted, Some(end)) => {
            let left = end.duration_since(input.now) + jiff::SignedDuration::from_millis(999);
            full.min(left.as_secs())
        }
        _ => full,
    };
    left.max(1)
}

/// No retry of a clean-up waits longer than this.
pub(crate) const LONGEST_RETRY: Duration = Duration::from_secs(20);
