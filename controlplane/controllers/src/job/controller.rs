//! The shell of the Job controller.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Resource, ResourceExt};
use skep_api::LabelSelector;
use skep_informer::{Change, EventType, ObjectKey, Outcome, WorkQueue, work};

use super::plan::{INDEX, plan};
use crate::claim;
use crate::context::{BY_CONTROLLER, Context, orphan_value};
use crate::error::{ControllerError, unless_gone};
use crate::expectations::Expectations;
use crate::owner::controller_reference;
use crate::pod_control::{PodControl, pod_from_template};
use crate::pod_owner::PodOwnerHandler;

/// Runs Jobs.
pub(crate) struct JobController {
    context: Arc<Context>,
    queue: Arc<WorkQueue<ObjectKey>>,
    expectations: Arc<Expectations>,
}

impl JobController {
    /// Registers for Jobs and pods.
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let expectations: Arc<Expectations> = Arc::default();
        let informers = &context.informers;
        let (sink, forget) = (queue.clone(), expectations.clone());
        informers.jobs.on_change(move |change| {
            let key = ObjectKey::of(&**change.latest());
            if matches!(change, Change::Deleted(_)) {
                forget.forget(&key);
            }
            sink.add(key);
        });
        PodOwnerHandler {
            kind: "Job",
            queue: queue.clone(),
            expectations: expectations.clone(),
            adopters: Box::new(|_| Vec::new()),
        }
        .attach(&informers.pods);
        Self { context: context.clone(), queue, expectations }
    }

    /// Works until dropped.
    pub(crate) async fn run(self) {
        work("jobs", &self.queue, 2, |key| self.reconcile(key)).await;
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ControllerError> {
        let Some(job) = self.context.informers.jobs.store().get(&key) else { return Ok(Outcome::Done) };
        let ours =
            job.spec.as_ref().is_none_or(|spec| spec.managed_by.as_deref().is_none_or(|by| by == MANAGER));
        if job.metadata.deletion_timestamp.is_some() || !ours {
            return Ok(Outcome::Done);
        }
        if !self.expectations.satisfied(&key, Instant::now()) {
            return Ok(Outcome::Done);
        }
        let pods = self.claim(&job).await?;
        let plan = plan(&job, &pods, Timestamp::now());
        if plan.expired {
            return self.expire(&key, &job).await;
        }
        let control = PodControl { context: &self.context, owner: &*job, expectations: &self.expectations };
        if !plan.create.is_empty() || !plan.delete.is_empty() {
            let uids = plan.delete.iter().map(|pod| pod.uid.clone());
            self.expectations.set(&key, plan.create.len(), uids, Instant::now());
        }
        let created = control.create(plan.create.iter().map(|index| make_pod(&job, *index)).collect()).await;
        let deleted = control.delete(&plan.delete).await;
        self.write_status(&job, plan.status).await?;
        created.and(deleted)?;
        Ok(plan.again.map_or(Outcome::Done, Outcome::After))
    }

    async fn claim(&self, job: &Job) -> Result<Vec<Arc<Pod>>, ControllerError> {
        let store = self.context.informers.pods.store();
        let namespace = job.namespace().unwrap_or_default();
        let uid = job.uid().unwrap_or_default();
        let raw = job.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
        let selector = LabelSelector::from_object(&raw).map_err(|error| ControllerError::Selector {
            object: job.name_any(),
            reason: error.to_string(),
        })?;
        let mut candidates = store.by_index(BY_CONTROLLER, &uid);
        candidates.extend(store.by_index(BY_CONTROLLER, &orphan_value(&namespace)));
        let deleting = job.meta().deletion_timestamp.is_some();
        let claims = claim::claim(&uid, deleting, &selector, candidates);
        claim::apply(&self.context.namespaced(&namespace), &controller_reference(job), claims).await
    }

    async fn expire(&self, key: &ObjectKey, job: &Job) -> Result<Outcome, ControllerError> {
        let same = Preconditions { uid: job.uid(), resource_version: None };
        let api = self.context.namespaced::<Job>(&key.namespace);
        unless_gone(api.delete(&key.name, &DeleteParams::foreground().preconditions(same)).await)?;
        Ok(Outcome::Done)
    }

    async fn write_status(&self, job: &Job, status: JobStatus) -> Result<(), ControllerError> {
        if job.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let before = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let known: Vec<&str> = before.map(|condition| condition.type_.as_str()).collect();
        for condition in status.conditions.iter().flatten().filter(|new| !known.contains(&new.type_.as_str()))
        {
            let (kind, reason, message) = match condition.type_.as_str() {
                "Complete" => (EventType::Normal, "Completed", "Job completed".to_owned()),
                "Failed" => {
                    let reason = condition.reason.as_deref().unwrap_or("Failed");
                    (EventType::Warning, reason, condition.message.clone().unwrap_or_default())
                }
                _ => continue,
            };
            self.context.recorder.publish(job, kind, reason, message);
        }
        let api = self.context.namespaced::<Job>(&job.namespace().unwrap_or_default());
        let updated = Job { status: Some(status), ..job.clone() };
        unless_gone(api.replace_status(&job.name_any(), &PostParams::default(), &updated).await)?;
        Ok(())
    }
}

/// Jobs with another `spec.managedBy` are somebody else's.
const MANAGER: &str = "kubernetes.io/job-controller";

fn make_pod(job: &Job, index: Option<i32>) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = pod_from_template(&template, &job.name_any(), controller_reference(job));
    let Some(index) = index else { return pod };
    let text = index.to_string();
    pod.metadata.generate_name = Some(format!("{}-{text}-", job.name_any()));
    pod.metadata.annotations.get_or_insert_default().insert(INDEX.into(), text.clone());
    pod.metadata.labels.get_or_insert_default().insert(INDEX.into(), text.clone());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{}-{text}", job.name_any()));
    let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
    for container in containers {
        let field = ObjectFieldSelector {
            field_path: format!("metadata.labels['{INDEX}']"),
            ..ObjectFieldSelector::default()
        };
        let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
        let variable =
            EnvVar { name: "JOB_COMPLETION_INDEX".into(), value_from: Some(source), ..EnvVar::default() };
        container.env.get_or_insert_default().push(variable);
    }
    pod
}
