//! The shell of the EndpointSlice controller.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};
use skep_informer::{Change, ObjectKey, Outcome, Store, WorkQueue, work};

use super::endpoint::Backends;
use super::legacy;
use super::plan::{Command, MANAGED_BY, MANAGER, SERVICE_NAME, plan};
use crate::context::{BY_NODE, BY_SERVICE, Context, Informers, service_value};
use crate::error::{ControllerError, unless_gone};
use crate::expectations::Expectations;
use crate::pod_control::is_terminating_namespace;
use crate::pods;

/// Keeps the slices of each Service.
pub(crate) struct EndpointSliceController {
    context: Arc<Context>,
    queue: Arc<WorkQueue<ObjectKey>>,
    expectations: Arc<Expectations>,
}

impl EndpointSliceController {
    /// Registers for Services, pods, nodes, and for changes that others make to the slices.
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let expectations: Arc<Expectations> = Arc::default();
        let informers = &context.informers;
        let sink = queue.clone();
        informers.services.on_change(move |change| sink.add(ObjectKey::of(&**change.latest())));
        register_pods(informers, &queue);
        register_nodes(informers, &queue);
        register_slices(informers, &queue, &expectations);
        let sink = queue.clone();
        informers.endpoints.on_change(move |change| {
            if !matches!(change, Change::Added(_)) {
                sink.add(ObjectKey::of(&**change.latest()));
            }
        });
        Self { context: context.clone(), queue, expectations }
    }

    /// Works until dropped.
    pub(crate) async fn run(self) {
        work("endpointslices", &self.queue, 5, |key| self.reconcile(key)).await;
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ControllerError> {
        let informers = &self.context.informers;
        let Some(service) = informers.services.store().get(&key) else {
            self.expectations.forget(&key);
            return self.remove_legacy(&key).await;
        };
        let Some(selector) = selector(&service).filter(|_| service.metadata.deletion_timestamp.is_none())
        else {
            return Ok(Outcome::Done);
        };
        if !self.expectations.satisfied(&key, Instant::now()) {
            return Ok(Outcome::Done);
        }
        let pods: Vec<Arc<Pod>> = informers
            .pods
            .store()
            .list_in(&key.namespace)
            .into_iter()
            .filter(|pod| matches(selector, pod))
            .collect();
        let nodes = pods.iter().filter_map(|pod| pods::node_of(pod));
        let nodes: HashMap<String, _> = nodes
            .filter_map(|name| Some((name.to_owned(), informers.nodes.store().get_cluster(name)?)))
            .collect();
        let backends = Backends { service: &service, pods: &pods, nodes: &nodes };
        let value = service_value(&key.namespace, &key.name);
        let mut slices = informers.endpoint_slices.store().by_index(BY_SERVICE, &value);
        slices.retain(|slice| slice.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER));
        self.apply(&key, plan(&backends, &slices)).await?;
        let existing = informers.endpoints.store().get(&key);
        if let Some(endpoints) = legacy::plan(&backends, existing.as_deref()) {
            self.write_legacy(&key, &endpoints).await?;
        }
        Ok(Outcome::Done)
    }

    async fn apply(&self, key: &ObjectKey, commands: Vec<Command>) -> Result<(), ControllerError> {
        let api = self.context.namespaced::<EndpointSlice>(&key.namespace);
        let creations = commands.iter().filter(|command| matches!(command, Command::Create(_))).count();
        if creations > 0 {
            self.expectations.set(key, creations, [], Instant::now());
        }
        let mut open = creations;
        for command in commands {
            let creates = matches!(command, Command::Create(_));
            if let Err(error) = write(&api, command).await {
                self.expectations.created(key, open);
                return Err(error);
            }
            open -= usize::from(creates);
        }
        Ok(())
    }

    async fn write_legacy(&self, key: &ObjectKey, endpoints: &Endpoints) -> Result<(), ControllerError> {
        let api = self.context.namespaced::<Endpoints>(&key.namespace);
        if endpoints.metadata.resource_version.is_some() {
            return unless_gone(api.replace(&key.name, &PostParams::default(), endpoints).await).map(drop);
        }
        match api.create(&PostParams::default(), endpoints).await {
            Err(kube::Error::Api(status)) if is_terminating_namespace(&status) => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    async fn remove_legacy(&self, key: &ObjectKey) -> Result<Outcome, ControllerError> {
        let known = self.context.informers.endpoints.store().get(key);
        let ours = |endpoints: &Endpoints| {
            endpoints.labels().get(legacy::MANAGED_BY).is_some_and(|manager| manager == legacy::MANAGER)
        };
        if known.is_some_and(|endpoints| ours(&endpoints)) {
            let api = self.context.namespaced::<Endpoints>(&key.namespace);
            unless_gone(api.delete(&key.name, &DeleteParams::default()).await)?;
        }
        Ok(Outcome::Done)
    }
}

async fn write(api: &kube::Api<EndpointSlice>, command: Command) -> Result<(), ControllerError> {
    match command {
        Command::Create(slice) => api.create(&PostParams::default(), &slice).await.map(drop)?,
        Command::Update(slice) => {
            unless_gone(api.replace(&slice.name_any(), &PostParams::default(), &slice).await)?;
        }
        Command::Delete(name) => {
            unless_gone(api.delete(&name, &DeleteParams::default()).await)?;
        }
    }
    Ok(())
}

type Labels = std::collections::BTreeMap<String, String>;

/// The selector of a Service that has pods of its own.
fn selector(service: &Service) -> Option<&Labels> {
    let spec = service.spec.as_ref().filter(|spec| spec.type_.as_deref() != Some("ExternalName"))?;
    spec.selector.as_ref().filter(|selector| !selector.is_empty())
}

fn matches(selector: &Labels, pod: &Pod) -> bool {
    selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value))
}

fn enqueue_services(services: &Store<Service>, queue: &WorkQueue<ObjectKey>, pod: &Pod) {
    for service in services.list_in(&pod.namespace().unwrap_or_default()) {
        if selector(&service).is_some_and(|selector| matches(selector, pod)) {
            queue.add(ObjectKey::of(&*service));
        }
    }
}

fn register_pods(informers: &Informers, queue: &Arc<WorkQueue<ObjectKey>>) {
    let (sink, services) = (queue.clone(), informers.services.store().clone());
    informers.pods.on_change(move |change| {
        if let Change::Updated { old, new } = &change {
            if !concerns_endpoints(old, new) {
                return;
            }
            if old.labels() != new.labels() {
                enqueue_services(&services, &sink, old);
            }
        }
        enqueue_services(&services, &sink, change.latest());
    });
}

/// Whether a pod's change can show in an endpoint.
fn concerns_endpoints(old: &Pod, new: &Pod) -> bool {
    let ips = |pod: &Pod| pod.status.as_ref().map(|status| (status.pod_ip.clone(), status.pod_ips.clone()));
    old.labels() != new.labels()
        || pods::is_ready(old) != pods::is_ready(new)
        || pods::is_terminating(old) != pods::is_terminating(new)
        || pods::is_finished(old) != pods::is_finished(new)
        || pods::node_of(old) != pods::node_of(new)
        || old.metadata.uid != new.metadata.uid
        || ips(old) != ips(new)
}

/// A node that appears, disappears or moves zones concerns the Services of its pods.
fn register_nodes(informers: &Informers, queue: &Arc<WorkQueue<ObjectKey>>) {
    let (sink, services, pods) =
        (queue.clone(), informers.services.store().clone(), informers.pods.store().clone());
    informers.nodes.on_change(move |change| {
        if let Change::Updated { old, new } = &change
            && old.labels() == new.labels()
        {
            return;
        }
        for pod in pods.by_index(BY_NODE, &change.latest().name_any()) {
            enqueue_services(&services, &sink, &pod);
        }
    });
}

fn register_slices(
    informers: &Informers,
    queue: &Arc<WorkQueue<ObjectKey>>,
    expectations: &Arc<Expectations>,
) {
    let (sink, expectations) = (queue.clone(), expectations.clone());
    informers.endpoint_slices.on_change(move |change| {
        let slice = change.latest();
        let Some(service) = slice.labels().get(SERVICE_NAME) else { return };
        let key = ObjectKey::namespaced(slice.namespace().unwrap_or_default(), service.clone());
        if let Change::Added(_) = change {
            expectations.created(&key, 1);
        }
        sink.add(key);
    });
}
