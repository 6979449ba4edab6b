//! Pod conditions: which hold, why not, and since when. Pure.

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::PodCondition, apimachinery::pkg::apis::meta::v1::Time};

use super::{
    model::{PodModel, Role},
    outcome,
    plan::Input,
    view::RunState,
};

/// A condition as derived, before its transition time is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Derived {
    kind: &'static str,
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Derived {
    fn holds(kind: &'static str) -> Self {
        Self { kind, holds: true, reason: None, message: None }
    }

    fn fails(kind: &'static str, reason: &'static str, message: String) -> Self {
        Self { kind, holds: false, reason: Some(reason), message: Some(message) }
    }
}

/// The conditions this kubelet owns, with transition times carried over from `known`.
pub(crate) fn conditions(input: &Input<'_>, phase: &str, known: &[PodCondition]) -> Vec<PodCondition> {
    let generation = input.model.pod.metadata.generation;
    let mut derived = vec![scheduled(known), sandbox(input), initialized(input, phase)];
    let containers = containers_ready(input, phase);
    derived.push(ready(input.model, &containers, known));
    derived.push(containers);
    derived.into_iter().map(|d| stamp(d, known, generation, input.now)).collect()
}

fn stamp(derived: Derived, known: &[PodCondition], generation: Option<i64>, now: Timestamp) -> PodCondition {
    let status = if derived.holds { "True" } else { "False" };
    let before = known.iter().find(|c| c.type_ == derived.kind && c.status == status);
    let since = before.and_then(|c| c.last_transition_time.clone()).unwrap_or_else(|| whole_second(now));
    PodCondition {
        type_: derived.kind.to_owned(),
        status: status.to_owned(),
        reason: derived.reason.map(str::to_owned),
        message: derived.message,
        last_transition_time: Some(since),
        last_probe_time: None,
        observed_generation: generation,
    }
}

/// The API keeps whole seconds; keeping more here would look like a change on every comparison.
pub(crate) fn whole_second(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn scheduled(_known: &[PodCondition]) -> Derived {
    Derived::holds("PodScheduled")
}

fn sandbox(input: &Input<'_>) -> Derived {
    let stands = input.view.sandbox().is_some_and(|s| input.model.host_network() || !s.ips.is_empty());
    if stands {
        Derived::holds("PodReadyToStartContainers")
    } else {
        Derived { kind: "PodReadyToStartContainers", holds: false, reason: None, message: None }
    }
}

fn initialized(input: &Input<'_>, phase: &str) -> Derived {
    let kind = "Initialized";
    if phase == "Succeeded" {
        return Derived { reason: Some("PodCompleted"), ..Derived::holds(kind) };
    }
    if outcome::is_initialized(input.model, input.view, |u, c| input.memory.is_started(u, c)) {
        return Derived::holds(kind);
    }
    let incomplete: Vec<&str> = input
        .model
        .units
        .iter()
        .filter(|u| match u.role {
            Role::Init => {
                !input.view.current(u.name()).is_some_and(|c| c.state == RunState::Exited && c.exit_code == 0)
            }
            Role::Sidecar => !input.view.current(u.name()).is_some_and(|c| input.memory.is_started(u, c)),
            Role::Main | Role::Ephemeral => false,
        })
        .map(|u| u.name())
        .collect();
    if incomplete.is_empty() {
        return Derived::holds(kind);
    }
    let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    Derived::fails(kind, "ContainersNotInitialized", message)
}

fn containers_ready(input: &Input<'_>, phase: &str) -> Derived {
    let kind = "ContainersReady";
    match phase {
        "Succeeded" => {
            return Derived { message: None, ..Derived::fails(kind, "PodCompleted", String::new()) };
        }
        "Failed" => return Derived { message: None, ..Derived::fails(kind, "PodFailed", String::new()) },
        _ => {}
    }
    let unready: Vec<&str> = input
        .model
        .units
        .iter()
        .filter(|u| matches!(u.role, Role::Main | Role::Sidecar))
        .filter(|u| !input.view.latest(u.name()).is_some_and(|c| input.memory.is_ready(u, c)))
        .map(|u| u.name())
        .collect();
    if unready.is_empty() {
        return Derived::holds(kind);
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    Derived::fails(kind, "ContainersNotReady", message)
}

fn ready(model: &PodModel, containers: &Derived, known: &[PodCondition]) -> Derived {
    let kind = "Ready";
    if !containers.holds {
        return Derived { kind, ..containers.clone() };
    }
    let gates = model.spec().and_then(|s| s.readiness_gates.as_deref()).unwrap_or_default();
    let closed: Vec<String> = gates
        .iter()
        .map(|g| g.condition_type.as_str())
        .filter(|gate| !known.iter().any(|c| c.type_ == *gate && c.status == "True"))
        .map(|gate| format!("corresponding condition of pod readiness gate \"{gate}\" is not True"))
        .collect();
    if closed.is_empty() {
        return Derived::holds(kind);
    }
    Derived::fails(kind, "ReadinessGatesNotReady", closed.join(", "))
}
