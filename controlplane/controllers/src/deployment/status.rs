//! Counts and conditions of a Deployment.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::rolling::Bounds;
use super::template::{available, replicas};

const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
const DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
/// The deadline that means "none".
const NO_DEADLINE: i32 = i32::MAX;

/// The counts that `sets` add up to; conditions as they were.
pub(crate) fn counts(
    deployment: &Deployment,
    sets: &[&ReplicaSet],
    new: Option<&ReplicaSet>,
) -> DeploymentStatus {
    let old = deployment.status.clone().unwrap_or_default();
    let sum = |count: fn(&ReplicaSet) -> i32| sets.iter().map(|set| count(set)).sum::<i32>();
    let serving = sum(available);
    let terminating =
        sum(|set| set.status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or(0));
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: Some(sum(existing)),
        updated_replicas: Some(new.map_or(0, existing)),
        ready_replicas: Some(sum(|set| {
            set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
        })),
        available_replicas: Some(serving),
        unavailable_replicas: Some((sum(replicas) - serving).max(0)),
        terminating_replicas: Some(terminating),
        collision_count: old.collision_count,
        conditions: old.conditions,
    }
}

fn existing(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

/// Whether the rollout is over: every pod is of the new template and available.
pub(crate) fn is_complete(spec: &DeploymentSpec, status: &DeploymentStatus) -> bool {
    let wanted = spec.replicas;
    status.updated_replicas == wanted && status.replicas == wanted && status.available_replicas == wanted
}

/// Updates the Available condition.
pub(crate) fn set_available(status: &mut DeploymentStatus, bounds: Bounds, now: Timestamp) {
    let condition = if status.available_replicas.unwrap_or(0) >= bounds.minimum() {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(status, "Available", condition.0, condition.1, condition.2.to_owned(), now);
}

/// Mirrors the failure of a set to make its pods.
pub(crate) fn set_replica_failure(
    status: &mut DeploymentStatus,
    new: Option<&ReplicaSet>,
    old: &[&ReplicaSet],
    now: Timestamp,
) {
    let failure = new.into_iter().chain(old.iter().copied()).find_map(|set| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")
    });
    match failure {
        Some(failure) => {
            let reason = failure.reason.clone().unwrap_or_default();
            let message = failure.message.clone().unwrap_or_default();
            set(status, "ReplicaFailure", "True", &reason, message, now);
        }
        None => remove(status, "ReplicaFailure"),
    }
}

/// Notes a pause or its end in the Progressing condition.
pub(crate) fn set_paused(status: &mut DeploymentStatus, spec: &DeploymentSpec, now: Timestamp) {
    if spec.progress_deadline_seconds.is_none_or(|deadline| deadline == NO_DEADLINE) {
        return;
    }
    let reason = progressing(status).and_then(|condition| condition.reason.as_deref());
    if reason == Some(DEADLINE_EXCEEDED) {
        return;
    }
    match (spec.paused == Some(true), reason == Some("DeploymentPaused")) {
        (true, false) => {
            set(status, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused".into(), now);
        }
        (false, true) => {
            set(status, "Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed".into(), now);
        }
        _ => {}
    }
}

/// Updates the Progressing condition; returns when the deadline would pass.
pub(crate) fn set_progress(
    status: &mut DeploymentStatus,
    deployment: &Deployment,
    spec: &DeploymentSpec,
    new: Option<&ReplicaSet>,
    created: bool,
    now: Timestamp,
) -> Option<Duration> {
    let Some(deadline) = spec.progress_deadline_seconds.filter(|deadline| *deadline != NO_DEADLINE) else {
        remove(status, "Progressing");
        return None;
    };
    let subject = new.map_or_else(
        || format!("Deployment {:?}", deployment.name_any()),
        |set| format!("ReplicaSet {:?}", set.name_any()),
    );
    let reason = progressing(status).and_then(|condition| condition.reason.clone());
    if created {
        let message =
            format!("Created new replica set {:?}", new.map(ResourceExt::name_any).unwrap_or_default());
        set(status, "Progressing", "True", "NewReplicaSetCreated", message, now);
    } else if reason.is_none() && new.is_some() {
        let message =
            format!("Found new replica set {:?}", new.map(ResourceExt::name_any).unwrap_or_default());
        set(status, "Progressing", "True", "FoundNewReplicaSet", message, now);
    }
    let settled =
        reason.as_deref() == Some(NEW_AVAILABLE) && status.replicas == status.updated_replicas && !created;
    if settled || spec.paused == Some(true) {
        return None;
    }
    if is_complete(spec, status) {
        set(
            status,
            "Progressing",
            "True",
            NEW_AVAILABLE,
            format!("{subject} has successfully progressed."),
            now,
        );
        return None;
    }
    if has_progressed(deployment.status.as_ref(), status) {
        set(status, "Progressing", "True", "ReplicaSetUpdated", format!("{subject} is progressing."), now);
        touch(status, now);
    }
    let left = deadline_in(status, deadline, now)?;
    if left.is_positive() {
        return Duration::try_from(left).ok();
    }
    set(
        status,
        "Progressing",
        "False",
        DEADLINE_EXCEEDED,
        format!("{subject} has timed out progressing."),
        now,
    );
    None
}

fn deadline_in(status: &DeploymentStatus, deadline: i32, now: Timestamp) -> Option<SignedDuration> {
    let condition = progressing(status)?;
    match condition.reason.as_deref() {
        Some(NEW_AVAILABLE) => None,
        Some(DEADLINE_EXCEEDED) => Some(SignedDuration::ZERO),
        _ => {
            let since = condition.last_update_time.as_ref().map_or(now, |time| time.0);
            Some(SignedDuration::from_secs(i64::from(deadline)) - now.duration_since(since))
        }
    }
}

fn has_progressed(before: Option<&DeploymentStatus>, after: &DeploymentStatus) -> bool {
    let Some(before) = before else { return false };
    let old = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    after.updated_replicas.unwrap_or(0) > before.updated_replicas.unwrap_or(0)
        || old(after) < old(before)
        || after.ready_replicas.unwrap_or(0) > before.ready_replicas.unwrap_or(0)
        || after.available_replicas.unwrap_or(0) > before.available_replicas.unwrap_or(0)
}

fn progressing(status: &DeploymentStatus) -> Option<&DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|condition| condition.type_ == "Progressing")
}

fn touch(status: &mut DeploymentStatus, now: Timestamp) {
    let conditions = status.conditions.iter_mut().flatten();
    for condition in conditions.filter(|condition| condition.type_ == "Progressing") {
        condition.last_update_time = Some(Time(now));
    }
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = status.conditions.as_mut() {
        conditions.retain(|condition| condition.type_ != kind);
    }
}

/// Sets a condition; nothing changes when status and reason are what they were.
fn set(
    status: &mut DeploymentStatus,
    kind: &str,
    value: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    let position = conditions.iter().position(|condition| condition.type_ == kind);
    let old = position.map(|position| &conditions[position]);
    if old.is_some_and(|old| old.status == value && old.reason.as_deref() == Some(reason)) {
        return;
    }
    let since = old.filter(|old| old.status == value).and_then(|old| old.last_transition_time.clone());
    let condition = DeploymentCondition {
        type_: kind.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: since.or(Some(Time(now))),
    };
    match position {
        Some(position) => conditions[position] = condition,
        None => conditions.push(condition),
    }
}
