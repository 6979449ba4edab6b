//! What becomes of one object, given how its owners fare.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PropagationPolicy;

use super::graph::{FOREGROUND, ORPHAN};

/// How an owner fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnerState {
    /// It exists.
    Solid,
    /// It does not exist (or is another object of the same name).
    Absent,
    /// It is being deleted and waits for its dependents.
    Waiting,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Nothing.
    Keep,
    /// Take out the references to these owners (uids): others keep the object.
    Unlink(Vec<String>),
    /// Delete it.
    Delete(PropagationPolicy),
}

/// Decides about the object with `meta`, whose owners (by uid) fare like `owners`.
pub(crate) fn plan(meta: &ObjectMeta, owners: &[(String, OwnerState)], has_dependents: bool) -> Action {
    let any = |state: OwnerState| owners.iter().any(|(_, own)| *own == state);
    if owners.is_empty() || meta.deletion_timestamp.is_some() {
        return Action::Keep;
    }
    if any(OwnerState::Solid) {
        let dead: Vec<String> = owners
            .iter()
            .filter(|(_, state)| *state != OwnerState::Solid)
            .map(|(uid, _)| uid.clone())
            .collect();
        return if dead.is_empty() { Action::Keep } else { Action::Unlink(dead) };
    }
    if any(OwnerState::Waiting) && has_dependents {
        return Action::Delete(PropagationPolicy::Foreground);
    }
    let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|name| name == finalizer);
    Action::Delete(if has(ORPHAN) {
        PropagationPolicy::Orphan
    } else if has(FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go(owners: &[OwnerState], has_dependents: bool) -> Action {
        let owners: Vec<(String, OwnerState)> =
            owners.iter().enumerate().map(|(index, state)| (index.to_string(), *state)).collect();
        plan(&ObjectMeta::default(), &owners, has_dependents)
    }

    #[test]
    fn goes_only_when_every_owner_is_gone() {
        use OwnerState::{Absent, Solid, Waiting};
        assert_eq!(go(&[], false), Action::Keep);
        assert_eq!(go(&[Solid], false), Action::Keep);
        assert_eq!(go(&[Absent], false), Action::Delete(PropagationPolicy::Background));
        assert_eq!(go(&[Solid, Absent, Waiting], false), Action::Unlink(vec!["1".into(), "2".into()]));
        assert_eq!(go(&[Waiting, Absent], false), Action::Delete(PropagationPolicy::Background));
        assert_eq!(go(&[Waiting], true), Action::Delete(PropagationPolicy::Foreground));
    }
}
