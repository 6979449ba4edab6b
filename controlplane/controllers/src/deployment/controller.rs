//! The shell of the Deployment controller.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Resource, ResourceExt};
use serde_json::json;
use skep_api::LabelSelector;
use skep_informer::{Change, EventType, ObjectKey, Outcome, WorkQueue, work};

use super::plan::{Command, plan};
use super::revision::REVISION;
use super::template::{self, replicas};
use crate::claim;
use crate::context::{BY_CONTROLLER, Context, orphan_value};
use crate::error::{ControllerError, unless_gone};
use crate::owner::{controller_of, controller_reference, is_controlled_by};
use crate::pod_control::is_terminating_namespace;
use crate::pods;

/// Moves Deployments towards their template.
pub(crate) struct DeploymentController {
    context: Arc<Context>,
    queue: Arc<WorkQueue<ObjectKey>>,
}

impl DeploymentController {
    /// Registers for Deployments, their sets, and the end of pods (Recreate waits for it).
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let informers = &context.informers;
        let sink = queue.clone();
        informers.deployments.on_change(move |change| sink.add(ObjectKey::of(&**change.latest())));
        let (sink, deployments) = (queue.clone(), informers.deployments.store().clone());
        informers.replica_sets.on_change(move |change| {
            for set in change.states() {
                match owner_key(set) {
                    Some(owner) => sink.add(owner),
                    None => {
                        for deployment in deployments.list_in(&set.namespace().unwrap_or_default()) {
                            if selector(&deployment).is_ok_and(|selector| selector.matches(set.labels())) {
                                sink.add(ObjectKey::of(&*deployment));
                            }
                        }
                    }
                }
            }
        });
        let (sink, sets) = (queue.clone(), informers.replica_sets.store().clone());
        informers.pods.on_change(move |change| {
            let pod = change.latest();
            let ended = matches!(change, Change::Deleted(_)) || pods::is_finished(pod);
            let set = controller_of(&pod.metadata).filter(|owner| ended && owner.kind == "ReplicaSet");
            let set = set.and_then(|owner| {
                sets.get(&ObjectKey::namespaced(pod.namespace().unwrap_or_default(), owner.name.clone()))
            });
            if let Some(owner) = set.and_then(|set| owner_key(&set)) {
                sink.add(owner);
            }
        });
        Self { context: context.clone(), queue }
    }

    /// Works until dropped.
    pub(crate) async fn run(self) {
        work("deployments", &self.queue, 5, |key| self.reconcile(key)).await;
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ControllerError> {
        let Some(deployment) = self.context.informers.deployments.store().get(&key) else {
            return Ok(Outcome::Done);
        };
        let sets = self.claim(&deployment).await?;
        let mut plan = plan(&deployment, &sets, self.old_pods_run(&deployment, &sets), Timestamp::now())?;
        let mut applied = Ok(());
        for command in plan.commands.drain(..) {
            applied = self.apply(&deployment, command, &mut plan.status).await;
            if applied.is_err() {
                break;
            }
        }
        let current = match plan.revision.filter(|_| applied.is_ok()) {
            Some(revision) => self.set_revision(&deployment, &revision).await?,
            None => Some((*deployment).clone()),
        };
        if let Some(current) = current {
            self.write_status(current, plan.status).await?;
        }
        applied?;
        Ok(plan.again.map_or(Outcome::Done, |left| Outcome::After(left + std::time::Duration::from_secs(1))))
    }

    async fn claim(&self, deployment: &Deployment) -> Result<Vec<ReplicaSet>, ControllerError> {
        let store = self.context.informers.replica_sets.store();
        let namespace = deployment.namespace().unwrap_or_default();
        let uid = deployment.uid().unwrap_or_default();
        let mut candidates = store.by_index(BY_CONTROLLER, &uid);
        candidates.extend(store.by_index(BY_CONTROLLER, &orphan_value(&namespace)));
        let deleting = deployment.meta().deletion_timestamp.is_some();
        let claims = claim::claim(&uid, deleting, &selector(deployment)?, candidates);
        let api = self.context.namespaced(&namespace);
        let owned = claim::apply(&api, &controller_reference(deployment), claims).await?;
        Ok(owned.iter().map(|set| (**set).clone()).collect())
    }

    fn old_pods_run(&self, deployment: &Deployment, sets: &[ReplicaSet]) -> bool {
        let new = template::find_new(deployment, sets).and_then(|set| set.metadata.uid.clone());
        let pods = self.context.informers.pods.store();
        let old =
            sets.iter().filter_map(|set| set.metadata.uid.clone()).filter(|uid| Some(uid) != new.as_ref());
        old.flat_map(|uid| pods.by_index(BY_CONTROLLER, &uid)).any(|pod| !pods::is_finished(&pod))
    }

    async fn apply(
        &self,
        deployment: &Deployment,
        command: Command,
        status: &mut DeploymentStatus,
    ) -> Result<(), ControllerError> {
        let api = self.context.namespaced::<ReplicaSet>(&deployment.namespace().unwrap_or_default());
        match command {
            Command::Create(set) => self.create(deployment, &set, status).await,
            Command::Update { set, from } => {
                let name = set.name_any();
                if unless_gone(api.replace(&name, &PostParams::default(), &set).await)?.is_some() {
                    self.tell_scaled(deployment, &name, from, replicas(&set));
                }
                Ok(())
            }
            Command::Delete { name, uid } => {
                let same = Preconditions { uid: Some(uid), resource_version: None };
                let params = DeleteParams::background().preconditions(same);
                unless_gone(api.delete(&name, &params).await).map(drop)
            }
        }
    }

    async fn create(
        &self,
        deployment: &Deployment,
        set: &ReplicaSet,
        status: &mut DeploymentStatus,
    ) -> Result<(), ControllerError> {
        let api = self.context.namespaced::<ReplicaSet>(&deployment.namespace().unwrap_or_default());
        let name = set.name_any();
        match api.create(&PostParams::default(), set).await {
            Ok(_) => {
                self.tell_scaled(deployment, &name, 0, replicas(set));
                Ok(())
            }
            Err(kube::Error::Api(error)) if error.is_already_exists() => {
                let Some(taken) = api.get_opt(&name).await? else { return Ok(()) };
                let own = is_controlled_by(&taken.metadata, &deployment.uid().unwrap_or_default());
                if !own || template::find_new(deployment, [&taken]).is_none() {
                    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                }
                Ok(())
            }
            Err(kube::Error::Api(error)) if is_terminating_namespace(&error) => Ok(()),
            Err(error) => {
                let message = format!("Failed to create new replica set {name:?}: {error}");
                let recorder = &self.context.recorder;
                recorder.publish(deployment, EventType::Warning, "ReplicaSetCreateError", message);
                Err(error.into())
            }
        }
    }

    fn tell_scaled(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        let direction = match from.cmp(&to) {
            std::cmp::Ordering::Less => "up",
            std::cmp::Ordering::Greater => "down",
            std::cmp::Ordering::Equal => return,
        };
        let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
        self.context.recorder.publish(deployment, EventType::Normal, "ScalingReplicaSet", message);
    }

    async fn set_revision(
        &self,
        deployment: &Deployment,
        revision: &str,
    ) -> Result<Option<Deployment>, ControllerError> {
        let api = self.context.namespaced::<Deployment>(&deployment.namespace().unwrap_or_default());
        let patch = json!({"metadata": {"annotations": {REVISION: revision}, "uid": deployment.uid()}});
        unless_gone(api.patch(&deployment.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await)
    }

    async fn write_status(
        &self,
        deployment: Deployment,
        status: DeploymentStatus,
    ) -> Result<(), ControllerError> {
        if deployment.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api = self.context.namespaced::<Deployment>(&deployment.namespace().unwrap_or_default());
        let updated = Deployment { status: Some(status), ..deployment };
        unless_gone(api.replace_status(&updated.name_any(), &PostParams::default(), &updated).await)?;
        Ok(())
    }
}

fn owner_key(set: &ReplicaSet) -> Option<ObjectKey> {
    let owner = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment")?;
    Some(ObjectKey::namespaced(set.namespace().unwrap_or_default(), owner.name.clone()))
}

fn selector(deployment: &Deployment) -> Result<LabelSelector, ControllerError> {
    let selector = deployment.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
    LabelSelector::from_object(&selector).map_err(|error| ControllerError::Selector {
        object: deployment.name_any(),
        reason: error.to_string(),
    })
}
