//! The shell of the StatefulSet controller.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use kube::api::PostParams;
use kube::{Resource, ResourceExt};
use serde_json::Value;
use skep_api::LabelSelector;
use skep_informer::{EventType, ObjectKey, Outcome, WorkQueue, work};

use super::identity::{claims, make_pod};
use super::plan::{Observed, Plan, plan, status};
use crate::claim;
use crate::context::{BY_CONTROLLER, Context, orphan_value};
use crate::error::{ControllerError, unless_gone};
use crate::expectations::Expectations;
use crate::owner::controller_reference;
use crate::pod_control::{PodControl, is_terminating_namespace};
use crate::pod_owner::PodOwnerHandler;
use crate::pods;
use crate::revisions::{self, HASH_LABEL, Subject};

/// Keeps each StatefulSet's pods.
pub(crate) struct StatefulSetController {
    context: Arc<Context>,
    queue: Arc<WorkQueue<ObjectKey>>,
    expectations: Arc<Expectations>,
}

/// The revisions of a set, by name.
struct Revisions {
    update: String,
    current: String,
    current_template: Option<PodTemplateSpec>,
    collided: bool,
}

impl StatefulSetController {
    /// Registers for sets and pods.
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let expectations: Arc<Expectations> = Arc::default();
        let informers = &context.informers;
        let sink = queue.clone();
        informers.stateful_sets.on_change(move |change| sink.add(ObjectKey::of(&**change.latest())));
        let sets = informers.stateful_sets.store().clone();
        let adopters = move |pod: &Pod| {
            let candidates = sets.list_in(&pod.namespace().unwrap_or_default());
            let fits =
                |set: &&Arc<StatefulSet>| selector(set).is_ok_and(|selector| selector.matches(pod.labels()));
            candidates.iter().filter(fits).map(|set| ObjectKey::of(&**set)).collect()
        };
        PodOwnerHandler {
            kind: "StatefulSet",
            queue: queue.clone(),
            expectations: expectations.clone(),
            adopters: Box::new(adopters),
        }
        .attach(&informers.pods);
        Self { context: context.clone(), queue, expectations }
    }

    /// Works until dropped.
    pub(crate) async fn run(self) {
        work("statefulsets", &self.queue, 2, |key| self.reconcile(key)).await;
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ControllerError> {
        let Some(set) = self.context.informers.stateful_sets.store().get(&key) else {
            return Ok(Outcome::Done);
        };
        let pods = self.claim(&set).await?;
        let revisions = self.revise(&set, &pods).await?;
        let observed =
            Observed { set: &set, pods: &pods, update: &revisions.update, current: &revisions.current };
        let now = Timestamp::now();
        let applied = self.apply(&set, plan(&observed, now), &revisions).await;
        let mut status = status(&observed, now);
        if revisions.collided {
            status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        }
        self.write_status(&set, status).await?;
        applied?;
        let min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        let ripening = pods.iter().filter_map(|pod| pods::available_in(pod, min_ready, now));
        let ripe =
            ripening.filter(|left| left.is_positive()).min().and_then(|left| Duration::try_from(left).ok());
        Ok(ripe.map_or(Outcome::Done, Outcome::After))
    }

    async fn claim(&self, set: &StatefulSet) -> Result<Vec<Arc<Pod>>, ControllerError> {
        let store = self.context.informers.pods.store();
        let namespace = set.namespace().unwrap_or_default();
        let uid = set.uid().unwrap_or_default();
        let mut candidates = store.by_index(BY_CONTROLLER, &uid);
        let orphans = store.by_index(BY_CONTROLLER, &orphan_value(&namespace));
        candidates.extend(orphans.into_iter().filter(|pod| super::identity::ordinal(set, pod).is_some()));
        let deleting = set.meta().deletion_timestamp.is_some();
        let claims = claim::claim(&uid, deleting, &selector(set)?, candidates);
        claim::apply(&self.context.namespaced(&namespace), &controller_reference(set), claims).await
    }

    async fn revise(&self, set: &StatefulSet, pods: &[Arc<Pod>]) -> Result<Revisions, ControllerError> {
        let (name, namespace) = (set.name_any(), set.namespace().unwrap_or_default());
        let spec = set.spec.clone().unwrap_or_default();
        let uid = set.uid().unwrap_or_default();
        let existing = self.context.informers.controller_revisions.store().by_index(BY_CONTROLLER, &uid);
        let labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
        let subject = Subject {
            name: &name,
            namespace: &namespace,
            owner: controller_reference(set),
            labels,
            template: &spec.template,
            collisions: set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0),
        };
        let history = revisions::plan(&subject, &existing)?;
        let update = format!("{name}-{}", history.current);
        let recorded = set.status.as_ref().and_then(|status| status.current_revision.clone());
        let known = |revision: &String| existing.iter().find(|own| own.name_any() == *revision);
        let current = recorded.filter(|revision| known(revision).is_some()).unwrap_or_else(|| update.clone());
        let current_template = known(&current).and_then(|revision| template_of(revision));
        let mut collided = false;
        if set.metadata.deletion_timestamp.is_none() {
            let api = self.context.namespaced::<ControllerRevision>(&namespace);
            collided = revisions::apply(&api, history.write).await?;
            let hash = |revision: &str| revision.strip_prefix(&format!("{name}-")).map(str::to_owned);
            let mut used: Vec<String> =
                pods.iter().filter_map(|pod| hash(pods::label(pod, HASH_LABEL)?)).collect();
            used.extend(hash(&current));
            let used: Vec<&str> = used.iter().map(String::as_str).collect();
            let limit = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
            revisions::prune(&api, revisions::expired(&existing, &history.current, &used, limit)).await?;
        }
        Ok(Revisions { update, current, current_template, collided })
    }

    async fn apply(
        &self,
        set: &StatefulSet,
        plan: Plan,
        revisions: &Revisions,
    ) -> Result<(), ControllerError> {
        for (number, revision) in plan.create {
            self.create(set, number, &revision, revisions).await?;
        }
        let control = PodControl { context: &self.context, owner: set, expectations: &self.expectations };
        control.delete(&plan.delete).await
    }

    async fn create(
        &self,
        set: &StatefulSet,
        number: i32,
        revision: &str,
        revisions: &Revisions,
    ) -> Result<(), ControllerError> {
        let namespace = set.namespace().unwrap_or_default();
        let claim_api = self.context.namespaced::<PersistentVolumeClaim>(&namespace);
        for (_, claim) in claims(set, number) {
            unless_exists(claim_api.create(&PostParams::default(), &claim).await)?;
        }
        let own = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let template =
            if revision == revisions.update { Some(own.clone()) } else { revisions.current_template.clone() };
        let pod = make_pod(set, &template.unwrap_or(own), revision, number);
        let name = pod.name_any();
        let recorder = &self.context.recorder;
        match self.context.namespaced::<Pod>(&namespace).create(&PostParams::default(), &pod).await {
            Ok(_) => {
                let message = format!("create Pod {name} in StatefulSet {} successful", set.name_any());
                recorder.publish(set, EventType::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(kube::Error::Api(status))
                if status.is_already_exists() || is_terminating_namespace(&status) =>
            {
                Ok(())
            }
            Err(error) => {
                let message =
                    format!("create Pod {name} in StatefulSet {} failed error: {error}", set.name_any());
                recorder.publish(set, EventType::Warning, "FailedCreate", message);
                Err(error.into())
            }
        }
    }

    async fn write_status(
        &self,
        set: &StatefulSet,
        status: StatefulSetStatus,
    ) -> Result<(), ControllerError> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api = self.context.namespaced::<StatefulSet>(&set.namespace().unwrap_or_default());
        let updated = StatefulSet { status: Some(status), ..set.clone() };
        unless_gone(api.replace_status(&set.name_any(), &PostParams::default(), &updated).await)?;
        Ok(())
    }
}

fn unless_exists<T>(result: Result<T, kube::Error>) -> Result<(), ControllerError> {
    match result {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// The template that a revision keeps.
fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template: Value = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

fn selector(set: &StatefulSet) -> Result<LabelSelector, ControllerError> {
    let selector = set.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
    LabelSelector::from_object(&selector)
        .map_err(|error| ControllerError::Selector { object: set.name_any(), reason: error.to_string() })
}
