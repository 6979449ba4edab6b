//! The pod's status as users see it, from the same input as the plan. Pure.

use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, PodCondition, PodIP, PodStatus};

use super::{
    conditions,
    container_status::container_status,
    ending::{self, Cause},
    model::Role,
    outcome::{self, Outcome},
    plan::Input,
    qos,
    view::RunState,
};

/// The status to report. `host_ips` are the node's addresses, the first one preferred.
pub(crate) fn status(input: &Input<'_>, host_ips: &[String]) -> PodStatus {
    if let Some(last) = &input.memory.last_status {
        return last.clone();
    }
    let cause = ending::cause(input);
    let initialized = outcome::is_initialized(input.model, input.view, |u, c| input.memory.is_started(u, c));
    let phase = phase(input, cause, initialized);
    let known = input.model.pod.status.as_ref();
    let known_conditions = known.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let of = |roles: &[Role]| -> Option<Vec<ContainerStatus>> {
        let list: Vec<_> = input
            .model
            .units
            .iter()
            .filter(|u| roles.contains(&u.role))
            .map(|u| container_status(input, u, initialized, cause.is_some()))
            .collect();
        (!list.is_empty()).then_some(list)
    };
    let ips = addresses(input, host_ips);
    let start = known.and_then(|s| s.start_time.clone());
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions::conditions(input, phase, known_conditions)),
        container_statuses: of(&[Role::Main]),
        init_container_statuses: of(&[Role::Init, Role::Sidecar]),
        ephemeral_container_statuses: of(&[Role::Ephemeral]),
        host_ip: host_ips.first().cloned(),
        host_ips: Some(host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect()),
        qos_class: Some(qos::class(&input.model.pod).name().to_owned()),
        start_time: Some(start.unwrap_or_else(|| conditions::whole_second(input.memory.seen_at))),
        observed_generation: input.model.pod.metadata.generation,
        reason: input.memory.verdict.as_ref().map(|v| v.reason.clone()),
        message: input.memory.verdict.as_ref().map(|v| v.message.clone()),
        ..PodStatus::default()
    }
}

fn addresses(input: &Input<'_>, host_ips: &[String]) -> Vec<String> {
    match input.view.sandboxes.first() {
        Some(_) if input.model.host_network() => host_ips.to_vec(),
        Some(sandbox) => sandbox.ips.clone(),
        None => Vec::new(),
    }
}

/// The phase a pod is in.
fn phase(input: &Input<'_>, cause: Option<Cause>, initialized: bool) -> &'static str {
    if input.memory.verdict.is_some() {
        return "Failed";
    }
    match outcome::outcome(input.model, input.view) {
        Some(Outcome::Succeeded) => return "Succeeded",
        Some(Outcome::Failed) => return "Failed",
        None => {}
    }
    let mains = || input.model.of_role(Role::Main).map(|u| input.view.latest(u.name()));
    if cause.is_some() && mains().all(|c| !c.is_some_and(|c| c.is_alive())) {
        let begun = mains().any(|c| c.is_some());
        let well = mains().all(|c| c.is_some_and(|c| c.state == RunState::Exited && c.exit_code == 0));
        return if well && begun {
            "Succeeded"
        } else if begun {
            "Failed"
        } else {
            "Pending"
        };
    }
    let never_ran = |c: Option<&super::view::ContainerView>| c.is_none_or(|c| c.state == RunState::Created);
    if !initialized || mains().any(never_ran) {
        return "Pending";
    }
    "Running"
}

/// The conditions of `status` that were not derived here are others': they are never sent.
pub(crate) fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    status.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}
