//! Has the pod run its course? The restart rules, and the end they lead to. Pure.

use super::{
    model::{PodModel, RestartPolicy, Role, Unit},
    view::{ContainerView, PodView, RunState},
};

/// How a pod ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Every container ended well.
    Succeeded,
    /// Some container failed and will not be tried again.
    Failed,
}

/// Whether a container of that role is started again after ending with `exit_code`.
pub(crate) fn restarts(policy: RestartPolicy, role: Role, exit_code: i32) -> bool {
    match (role, policy) {
        (Role::Sidecar, _) => true,
        (Role::Ephemeral, _) => false,
        (Role::Init, RestartPolicy::Never) => false,
        (Role::Init, _) => exit_code != 0,
        (Role::Main, RestartPolicy::Always) => true,
        (Role::Main, RestartPolicy::OnFailure) => exit_code != 0,
        (Role::Main, RestartPolicy::Never) => false,
    }
}

/// The end of the pod, once no container will run again.
pub(crate) fn outcome(model: &PodModel, view: &PodView) -> Option<Outcome> {
    if init_failed(model, view) {
        return Some(Outcome::Failed);
    }
    let mut all_well = true;
    let mut any = false;
    for unit in model.of_role(Role::Main) {
        let container = ended(model, view, unit)?;
        all_well &= container.exit_code == 0;
        any = true;
    }
    any.then_some(if all_well { Outcome::Succeeded } else { Outcome::Failed })
}

fn ended<'v>(model: &PodModel, view: &'v PodView, unit: &Unit) -> Option<&'v ContainerView> {
    let container = view.latest(unit.name()).filter(|c| c.state == RunState::Exited)?;
    (!restarts(model.policy, unit.role, container.exit_code)).then_some(container)
}

fn init_failed(model: &PodModel, view: &PodView) -> bool {
    model.policy == RestartPolicy::Never
        && model.of_role(Role::Init).any(|unit| {
            view.latest(unit.name()).is_some_and(|c| c.state == RunState::Exited && c.exit_code != 0)
        })
}

/// Whether all init containers are through (sidecars started), in the sandbox in use.
pub(crate) fn is_initialized(
    model: &PodModel,
    view: &PodView,
    started: impl Fn(&Unit, &ContainerView) -> bool,
) -> bool {
    if mains_begun(model, view) {
        return true;
    }
    model.units.iter().all(|unit| match unit.role {
        Role::Init => {
            view.current(unit.name()).is_some_and(|c| c.state == RunState::Exited && c.exit_code == 0)
        }
        Role::Sidecar => view.current(unit.name()).is_some_and(|c| started(unit, c)),
        Role::Main | Role::Ephemeral => true,
    })
}

/// Whether a main container was made in the sandbox in use: initialisation is then over for good.
pub(crate) fn mains_begun(model: &PodModel, view: &PodView) -> bool {
    model.of_role(Role::Main).any(|unit| view.current(unit.name()).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_rules_depend_on_policy_role_and_exit() {
        use RestartPolicy::{Always, Never, OnFailure};
        assert!(restarts(Always, Role::Main, 0));
        assert!(!restarts(OnFailure, Role::Main, 0));
        assert!(restarts(OnFailure, Role::Main, 1));
        assert!(!restarts(Never, Role::Main, 1));
        assert!(restarts(Always, Role::Init, 1));
        assert!(!restarts(Always, Role::Init, 0));
        assert!(!restarts(Never, Role::Init, 1));
        assert!(restarts(Never, Role::Sidecar, 0));
        assert!(!restarts(Always, Role::Ephemeral, 1));
    }
}
