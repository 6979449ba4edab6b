//! Pods to start and stop, and the status of a Job.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::pod_control::PodRef;
use crate::pods;

/// Annotation and label with the index of an Indexed Job's pod.
pub(crate) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const LAST_BACKOFF: Duration = Duration::from_secs(600);

/// What a Job needs.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Pods to start; each with its index for Indexed Jobs.
    pub(crate) create: Vec<Option<i32>>,
    /// Pods to stop.
    pub(crate) delete: Vec<PodRef>,
    /// Status.
    pub(crate) status: JobStatus,
    /// Whether the Job's time to live after finishing is over.
    pub(crate) expired: bool,
    /// When to look again.
    pub(crate) again: Option<Duration>,
}

/// Plans `job` with the pods it owns.
pub(crate) fn plan(job: &Job, owned: &[Arc<Pod>], now: Timestamp) -> Plan {
    let spec = job.spec.clone().unwrap_or_default();
    let mut status = job.status.clone().unwrap_or_default();
    let counts = Counts::of(owned, &spec);
    let mut plan =
        Plan { create: Vec::new(), delete: Vec::new(), status: status.clone(), expired: false, again: None };
    if let Some(since) = finished_at(&status) {
        let ttl = spec.ttl_seconds_after_finished.map(|ttl| SignedDuration::from_secs(i64::from(ttl)));
        if let Some(left) = ttl.map(|ttl| ttl - now.duration_since(since)) {
            plan.expired = !left.is_positive();
            plan.again = Duration::try_from(left).ok();
        }
        plan.delete = counts.active.iter().map(|pod| PodRef::of(pod)).collect();
        return plan;
    }
    counts.write(&mut status);
    if spec.suspend == Some(true) {
        plan.delete = counts.active.iter().map(|pod| PodRef::of(pod)).collect();
        status.start_time = None;
        set_condition(&mut status, "Suspended", "True", "JobSuspended", "Job suspended", now);
        plan.status = status;
        return plan;
    }
    if status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Suspended" && condition.status == "True")
    {
        set_condition(&mut status, "Suspended", "False", "JobResumed", "Job resumed", now);
    }
    let started = status.start_time.get_or_insert(Time(now)).0;
    let deadline = spec
        .active_deadline_seconds
        .map(SignedDuration::from_secs)
        .map(|limit| limit - now.duration_since(started));
    if let Some((reason, message)) = failure(&spec, &counts, deadline) {
        set_condition(&mut status, "FailureTarget", "True", reason, message, now);
        plan.delete = counts.active.iter().map(|pod| PodRef::of(pod)).collect();
        if counts.active.is_empty() {
            set_condition(&mut status, "Failed", "True", reason, message, now);
        }
    } else if counts.is_complete(&spec) {
        let (reason, message) = ("CompletionsReached", "Reached expected number of succeeded pods");
        set_condition(&mut status, "SuccessCriteriaMet", "True", reason, message, now);
        set_condition(&mut status, "Complete", "True", reason, message, now);
        status.completion_time = Some(Time(now));
        plan.delete = counts.active.iter().map(|pod| PodRef::of(pod)).collect();
    } else {
        scale(&mut plan, &spec, &counts, now);
    }
    let deadline = deadline.and_then(|left| Duration::try_from(left).ok());
    plan.again = plan.again.into_iter().chain(deadline).min();
    plan.status = status;
    plan
}

/// The Job's pods, sorted out.
struct Counts {
    active: Vec<Arc<Pod>>,
    ready: usize,
    terminating: usize,
    succeeded: usize,
    failed: usize,
    indexes: BTreeSet<i32>,
    running_indexes: BTreeSet<i32>,
    last_failure: Option<Timestamp>,
    restarts: i32,
    indexed: bool,
}

impl Counts {
    fn of(owned: &[Arc<Pod>], spec: &JobSpec) -> Self {
        let phase = |wanted: &'static str| owned.iter().filter(move |pod| pods::phase(pod) == wanted);
        let active: Vec<Arc<Pod>> = owned.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
        let failed_at = |pod: &Arc<Pod>| {
            let ended = pods::condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref());
            ended.or(pod.metadata.creation_timestamp.as_ref()).map(|time| time.0)
        };
        let indexed = spec.completion_mode.as_deref() == Some("Indexed");
        let range = 0..spec.completions.unwrap_or(0);
        let indexes: BTreeSet<i32> =
            phase("Succeeded").filter_map(|pod| index(pod)).filter(|index| range.contains(index)).collect();
        Self {
            ready: active.iter().filter(|pod| pods::is_ready(pod)).count(),
            terminating: owned
                .iter()
                .filter(|pod| pods::is_terminating(pod) && !pods::is_finished(pod))
                .count(),
            succeeded: if indexed { indexes.len() } else { phase("Succeeded").count() },
            failed: phase("Failed").count(),
            running_indexes: active.iter().filter_map(|pod| index(pod)).collect(),
            indexes,
            last_failure: phase("Failed").filter_map(failed_at).max(),
            restarts: active.iter().map(|pod| pods::restarts(pod)).sum(),
            active,
            indexed,
        }
    }

    fn write(&self, status: &mut JobStatus) {
        let count =
            |number: usize| Some(i32::try_from(number).unwrap_or(i32::MAX)).filter(|number| *number > 0);
        status.active = count(self.active.len());
        status.ready = Some(count(self.ready).unwrap_or(0));
        status.terminating = Some(count(self.terminating).unwrap_or(0));
        status.succeeded = count(self.succeeded);
        status.failed = count(self.failed);
        status.completed_indexes = self.indexed.then(|| intervals(&self.indexes));
    }

    fn is_complete(&self, spec: &JobSpec) -> bool {
        match spec.completions {
            Some(wanted) => usize::try_from(wanted).is_ok_and(|wanted| self.succeeded >= wanted),
            // A work queue is empty when one worker says so and the others have ended.
            None => self.succeeded > 0 && self.active.is_empty(),
        }
    }
}

fn failure(
    spec: &JobSpec,
    counts: &Counts,
    deadline: Option<SignedDuration>,
) -> Option<(&'static str, &'static str)> {
    let limit = spec.backoff_limit.unwrap_or(6);
    let on_failure =
        spec.template.spec.as_ref().and_then(|pod| pod.restart_policy.as_deref()) == Some("OnFailure");
    let retries =
        i32::try_from(counts.failed).unwrap_or(i32::MAX) + if on_failure { counts.restarts } else { 0 };
    if retries > limit {
        return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
    }
    let late = deadline.is_some_and(|left| !left.is_positive());
    late.then_some(("DeadlineExceeded", "Job was active longer than specified deadline"))
}

fn scale(plan: &mut Plan, spec: &JobSpec, counts: &Counts, now: Timestamp) {
    let parallelism = usize::try_from(spec.parallelism.unwrap_or(1)).unwrap_or(0);
    let active = counts.active.len();
    let left = match spec.completions {
        Some(completions) => usize::try_from(completions).unwrap_or(0).saturating_sub(counts.succeeded),
        None if counts.succeeded > 0 => active,
        None => parallelism,
    };
    let wanted = parallelism.min(left);
    if active > wanted {
        let mut surplus = counts.active.clone();
        surplus.sort_by_key(|pod| {
            (
                pods::is_ready(pod),
                std::cmp::Reverse(pod.metadata.creation_timestamp.as_ref().map(|time| time.0)),
            )
        });
        plan.delete = surplus.iter().take(active - wanted).map(|pod| PodRef::of(pod)).collect();
        return;
    }
    if let Some(wait) = backoff(counts, now).filter(|_| active < wanted) {
        plan.again = Some(wait);
        return;
    }
    let missing = wanted - active;
    plan.create = if counts.indexed {
        let free = (0..spec.completions.unwrap_or(0))
            .filter(|index| !counts.indexes.contains(index) && !counts.running_indexes.contains(index));
        free.take(missing).map(Some).collect()
    } else {
        vec![None; missing]
    };
}

/// How long to wait before the next pod, after failures.
fn backoff(counts: &Counts, now: Timestamp) -> Option<Duration> {
    let failures = u32::try_from(counts.failed).unwrap_or(u32::MAX);
    let delay = FIRST_BACKOFF.saturating_mul(1 << failures.checked_sub(1)?.min(10)).min(LAST_BACKOFF);
    let since = now.duration_since(counts.last_failure?);
    Duration::try_from(SignedDuration::try_from(delay).ok()? - since).ok().filter(|left| !left.is_zero())
}

/// The index of an Indexed Job's pod.
fn index(pod: &Pod) -> Option<i32> {
    pod.annotations().get(INDEX)?.parse().ok()
}

/// `1,3-5`: how completed indexes are written.
fn intervals(indexes: &BTreeSet<i32>) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for index in indexes {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => runs.push((*index, *index)),
        }
    }
    let write = |(first, last): &(i32, i32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    runs.iter().map(write).collect::<Vec<_>>().join(",")
}

fn finished_at(status: &JobStatus) -> Option<Timestamp> {
    let finished = |condition: &&JobCondition| {
        matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True"
    };
    let condition = status.conditions.iter().flatten().find(finished)?;
    Some(condition.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
}

fn set_condition(
    status: &mut JobStatus,
    kind: &str,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    let position = conditions.iter().position(|condition| condition.type_ == kind);
    if position.is_some_and(|position| conditions[position].status == value) {
        return;
    }
    let condition = JobCondition {
        type_: kind.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    match position {
        Some(position) => conditions[position] = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(spec: Value) -> Job {
        serde_json::from_value(json!({"metadata": {"name": "j", "uid": "u"}, "spec": spec})).unwrap()
    }

    fn pod(name: &str, phase: &str, index: Option<i32>) -> Arc<Pod> {
        let annotations = index.map(|index| json!({INDEX: index.to_string()})).unwrap_or(json!({}));
        let meta = json!({"name": name, "uid": name, "annotations": annotations,
            "creationTimestamp": "2026-01-01T00:00:00Z"});
        Arc::new(serde_json::from_value(json!({"metadata": meta, "status": {"phase": phase}})).unwrap())
    }

    fn spec(extra: Value) -> Value {
        let mut spec = json!({"parallelism": 2, "completions": 3, "template": {}});
        if let (Value::Object(spec), Value::Object(extra)) = (&mut spec, extra) {
            spec.extend(extra);
        }
        spec
    }

    fn has(plan: &Plan, kind: &str) -> bool {
        plan.status.conditions.iter().flatten().any(|condition| condition.type_ == kind)
    }

    #[test]
    fn runs_as_many_at_once_as_allowed_until_complete() {
        let job = job(spec(json!({})));
        let now = Timestamp::now();
        assert_eq!(plan(&job, &[], now).create.len(), 2);
        let two = [pod("a", "Succeeded", None), pod("b", "Succeeded", None)];
        assert_eq!(plan(&job, &two, now).create.len(), 1);
        let three = [pod("a", "Succeeded", None), pod("b", "Succeeded", None), pod("c", "Succeeded", None)];
        let done = plan(&job, &three, now);
        assert!(has(&done, "Complete") && done.create.is_empty());
        assert_eq!(done.status.succeeded, Some(3));
    }

    #[test]
    fn fails_beyond_its_backoff_limit() {
        let job = job(spec(json!({"backoffLimit": 1})));
        let pods = [pod("a", "Failed", None), pod("b", "Failed", None), pod("c", "Running", None)];
        let stopping = plan(&job, &pods, Timestamp::now());
        assert_eq!(stopping.delete.len(), 1);
        assert!(has(&stopping, "FailureTarget") && !has(&stopping, "Failed"));
        assert!(has(&plan(&job, &pods[..2], Timestamp::now()), "Failed"));
    }

    #[test]
    fn waits_after_a_failure() {
        let job = job(spec(json!({})));
        let failed_at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let pods = [pod("a", "Failed", None)];
        let waiting = plan(&job, &pods, failed_at + SignedDuration::from_secs(4));
        assert_eq!((waiting.create.len(), waiting.again), (0, Some(Duration::from_secs(6))));
        assert_eq!(plan(&job, &pods, failed_at + SignedDuration::from_secs(10)).create.len(), 2);
    }

    #[test]
    fn indexed_job_runs_each_index() {
        let job = job(spec(json!({"completionMode": "Indexed"})));
        let pods = [pod("a", "Succeeded", Some(0)), pod("b", "Running", Some(2))];
        let plan = plan(&job, &pods, Timestamp::now());
        assert_eq!(plan.create, [Some(1)]);
        assert_eq!(plan.status.completed_indexes.as_deref(), Some("0"));
    }

    #[test]
    fn suspended_job_stops_its_pods() {
        let job = job(spec(json!({"suspend": true})));
        let plan = plan(&job, &[pod("a", "Running", None)], Timestamp::now());
        assert_eq!((plan.delete.len(), plan.create.len()), (1, 0));
    }

    #[test]
    fn intervals_are_written_short() {
        assert_eq!(intervals(&BTreeSet::from([0, 1, 3, 5, 6, 7])), "0,1,3,5-7");
    }
}
