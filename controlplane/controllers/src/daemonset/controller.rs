//! The shell of the DaemonSet controller.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::PostParams;
use kube::{Resource, ResourceExt};
use parking_lot::Mutex;
use skep_api::LabelSelector;
use skep_informer::{Change, EventType, ObjectKey, Outcome, WorkQueue, work};

use super::placement::make_pod;
use super::plan::{Observed, Plan, plan, status};
use crate::claim;
use crate::context::{BY_CONTROLLER, Context, orphan_value};
use crate::error::{ControllerError, unless_gone};
use crate::expectations::Expectations;
use crate::owner::controller_reference;
use crate::pod_control::PodControl;
use crate::pod_owner::PodOwnerHandler;
use crate::pods;
use crate::revisions::{self, HASH_LABEL, Subject};

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(900);

/// Keeps each DaemonSet's pods.
pub(crate) struct DaemonSetController {
    context: Arc<Context>,
    queue: Arc<WorkQueue<ObjectKey>>,
    expectations: Arc<Expectations>,
    /// Failures by set and node: how many, and when the next failed pod may be replaced.
    failures: Mutex<HashMap<(ObjectKey, String), (u32, Instant)>>,
}

impl DaemonSetController {
    /// Registers for sets, pods and nodes.
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let expectations: Arc<Expectations> = Arc::default();
        let informers = &context.informers;
        let (sink, forget) = (queue.clone(), expectations.clone());
        informers.daemon_sets.on_change(move |change| {
            let key = ObjectKey::of(&**change.latest());
            if matches!(change, Change::Deleted(_)) {
                forget.forget(&key);
            }
            sink.add(key);
        });
        let sets = informers.daemon_sets.store().clone();
        let adopters = move |pod: &Pod| {
            let candidates = sets.list_in(&pod.namespace().unwrap_or_default());
            let fits =
                |set: &&Arc<DaemonSet>| selector(set).is_ok_and(|selector| selector.matches(pod.labels()));
            candidates.iter().filter(fits).map(|set| ObjectKey::of(&**set)).collect()
        };
        PodOwnerHandler {
            kind: "DaemonSet",
            queue: queue.clone(),
            expectations: expectations.clone(),
            adopters: Box::new(adopters),
        }
        .attach(&informers.pods);
        let (sink, sets) = (queue.clone(), informers.daemon_sets.store().clone());
        informers.nodes.on_change(move |change| {
            if let Change::Updated { old, new } = &change
                && !concerns_placement(old, new)
            {
                return;
            }
            for key in sets.keys() {
                sink.add(key);
            }
        });
        Self { context: context.clone(), queue, expectations, failures: Mutex::default() }
    }

    /// Works until dropped.
    pub(crate) async fn run(self) {
        work("daemonsets", &self.queue, 2, |key| self.reconcile(key)).await;
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ControllerError> {
        let Some(set) = self.context.informers.daemon_sets.store().get(&key) else {
            self.failures.lock().retain(|(owner, _), _| *owner != key);
            return Ok(Outcome::Done);
        };
        let pods = self.claim(&set).await?;
        let nodes = self.context.informers.nodes.store().list();
        let (hash, collided) = self.revise(&set, &pods).await?;
        let observed = Observed { set: &set, nodes: &nodes, pods: &pods, hash: &hash };
        let now = Timestamp::now();
        let mut again = None;
        let applied = if self.expectations.satisfied(&key, Instant::now()) {
            let mut plan = plan(&observed, now);
            again = self.admit_failed(&key, &set, &mut plan);
            self.apply(&key, &set, plan, &hash).await
        } else {
            Ok(())
        };
        let mut status = status(&observed, now);
        if collided {
            status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        }
        self.write_status(&set, status).await?;
        applied?;
        let min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        let ripening = pods.iter().filter_map(|pod| pods::available_in(pod, min_ready, now));
        let ripe =
            ripening.filter(|left| left.is_positive()).min().and_then(|left| Duration::try_from(left).ok());
        Ok(again.into_iter().chain(ripe).min().map_or(Outcome::Done, Outcome::After))
    }

    async fn claim(&self, set: &DaemonSet) -> Result<Vec<Arc<Pod>>, ControllerError> {
        let store = self.context.informers.pods.store();
        let namespace = set.namespace().unwrap_or_default();
        let uid = set.uid().unwrap_or_default();
        let mut candidates = store.by_index(BY_CONTROLLER, &uid);
        candidates.extend(store.by_index(BY_CONTROLLER, &orphan_value(&namespace)));
        let deleting = set.meta().deletion_timestamp.is_some();
        let claims = claim::claim(&uid, deleting, &selector(set)?, candidates);
        claim::apply(&self.context.namespaced(&namespace), &controller_reference(set), claims).await
    }

    /// Keeps the history; returns the current revision, and whether its name was taken.
    async fn revise(&self, set: &DaemonSet, pods: &[Arc<Pod>]) -> Result<(String, bool), ControllerError> {
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
        if set.metadata.deletion_timestamp.is_some() {
            return Ok((history.current, false));
        }
        let api = self.context.namespaced::<ControllerRevision>(&namespace);
        let collided = revisions::apply(&api, history.write).await?;
        let used: Vec<&str> = pods.iter().filter_map(|pod| pods::label(pod, HASH_LABEL)).collect();
        let limit = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
        revisions::prune(&api, revisions::expired(&existing, &history.current, &used, limit)).await?;
        Ok((history.current, collided))
    }

    /// Moves failed pods whose backoff is over into the deletions; returns when the next one is due.
    fn admit_failed(&self, key: &ObjectKey, set: &DaemonSet, plan: &mut Plan) -> Option<Duration> {
        let now = Instant::now();
        let mut failures = self.failures.lock();
        let mut next: Option<Duration> = None;
        for (node, pod) in std::mem::take(&mut plan.failed) {
            let entry = failures.entry((key.clone(), node.clone())).or_insert((0, now));
            if entry.1 > now {
                let left = entry.1 - now;
                next = Some(next.map_or(left, |next| next.min(left)));
                continue;
            }
            let delay = FIRST_RETRY.saturating_mul(1 << entry.0.min(10)).min(LAST_RETRY);
            *entry = (entry.0 + 1, now + delay);
            let message = format!(
                "Found failed daemon pod {}/{} on node {node}, will try to kill it",
                key.namespace, pod.name
            );
            self.context.recorder.publish(set, EventType::Warning, "FailedDaemonPod", message);
            plan.delete.push(pod);
        }
        next
    }

    async fn apply(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        plan: Plan,
        hash: &str,
    ) -> Result<(), ControllerError> {
        if plan.create_on.is_empty() && plan.delete.is_empty() {
            return Ok(());
        }
        let uids = plan.delete.iter().map(|pod| pod.uid.clone());
        self.expectations.set(key, plan.create_on.len(), uids, Instant::now());
        let control = PodControl { context: &self.context, owner: set, expectations: &self.expectations };
        let pods = plan.create_on.iter().map(|node| make_pod(set, node, hash)).collect();
        let created = control.create(pods).await;
        let deleted = control.delete(&plan.delete).await;
        created.and(deleted)
    }

    async fn write_status(&self, set: &DaemonSet, status: DaemonSetStatus) -> Result<(), ControllerError> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api = self.context.namespaced::<DaemonSet>(&set.namespace().unwrap_or_default());
        let updated = DaemonSet { status: Some(status), ..set.clone() };
        unless_gone(api.replace_status(&set.name_any(), &PostParams::default(), &updated).await)?;
        Ok(())
    }
}

fn selector(set: &DaemonSet) -> Result<LabelSelector, ControllerError> {
    let selector = set.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
    LabelSelector::from_object(&selector)
        .map_err(|error| ControllerError::Selector { object: set.name_any(), reason: error.to_string() })
}

/// Whether a node's change can move it in or out of a DaemonSet.
fn concerns_placement(old: &Node, new: &Node) -> bool {
    let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
    old.labels() != new.labels() || taints(old) != taints(new)
}
