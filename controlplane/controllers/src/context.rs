//! What all controllers share: the client, one informer per type, the event recorder.

use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service,
    ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use skep_informer::{Informer, Recorder};

use crate::config::ControllersConfig;
use crate::owner::controller_of;

/// Index of pods (and other dependents) by the uid of their controller; those without one are under
/// [`orphan_value`] of their namespace.
pub(crate) const BY_CONTROLLER: &str = "controller";
/// Index of pods by node name.
pub(crate) const BY_NODE: &str = "node";
/// Index of endpoint slices by namespace/service.
pub(crate) const BY_SERVICE: &str = "service";

/// Shared state of all controllers.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) informers: Informers,
    pub(crate) config: ControllersConfig,
}

impl Context {
    /// A client for one namespace's objects of a type.
    pub(crate) fn namespaced<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// A client for a cluster-scoped type.
    pub(crate) fn cluster<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>,
    {
        Api::all(self.client.clone())
    }
}

/// One informer per watched type.
pub(crate) struct Informers {
    pub(crate) pods: Arc<Informer<Pod>>,
    pub(crate) nodes: Arc<Informer<Node>>,
    pub(crate) leases: Arc<Informer<Lease>>,
    pub(crate) namespaces: Arc<Informer<Namespace>>,
    pub(crate) services: Arc<Informer<Service>>,
    pub(crate) endpoints: Arc<Informer<Endpoints>>,
    pub(crate) endpoint_slices: Arc<Informer<EndpointSlice>>,
    pub(crate) service_accounts: Arc<Informer<ServiceAccount>>,
    pub(crate) root_ca_maps: Arc<Informer<ConfigMap>>,
    pub(crate) replica_sets: Arc<Informer<ReplicaSet>>,
    pub(crate) deployments: Arc<Informer<Deployment>>,
    pub(crate) daemon_sets: Arc<Informer<DaemonSet>>,
    pub(crate) stateful_sets: Arc<Informer<StatefulSet>>,
    pub(crate) controller_revisions: Arc<Informer<ControllerRevision>>,
    pub(crate) claims: Arc<Informer<PersistentVolumeClaim>>,
    pub(crate) volumes: Arc<Informer<PersistentVolume>>,
    pub(crate) storage_classes: Arc<Informer<StorageClass>>,
    pub(crate) jobs: Arc<Informer<Job>>,
    pub(crate) csrs: Arc<Informer<CertificateSigningRequest>>,
    pub(crate) budgets: Arc<Informer<PodDisruptionBudget>>,
}

impl Informers {
    /// Informers with their indexes, not yet running.
    pub(crate) fn new() -> Self {
        Self {
            pods: Informer::new(&[(BY_CONTROLLER, controller_index), (BY_NODE, node_index)]),
            nodes: Informer::new(&[]),
            leases: Informer::new(&[]),
            namespaces: Informer::new(&[]),
            services: Informer::new(&[]),
            endpoints: Informer::new(&[]),
            endpoint_slices: Informer::new(&[(BY_SERVICE, service_index)]),
            service_accounts: Informer::new(&[]),
            root_ca_maps: Informer::new(&[]),
            replica_sets: Informer::new(&[(BY_CONTROLLER, controller_index)]),
            deployments: Informer::new(&[]),
            daemon_sets: Informer::new(&[]),
            stateful_sets: Informer::new(&[]),
            controller_revisions: Informer::new(&[(BY_CONTROLLER, controller_index)]),
            claims: Informer::new(&[]),
            volumes: Informer::new(&[]),
            storage_classes: Informer::new(&[]),
            jobs: Informer::new(&[]),
            csrs: Informer::new(&[]),
            budgets: Informer::new(&[]),
        }
    }

    /// The watches, one future each; they run until dropped.
    pub(crate) fn watches(&self, client: &Client) -> Vec<BoxFuture<'static, ()>> {
        let everything = watcher::Config::default;
        vec![
            watch(&self.pods, client, everything()),
            watch(&self.nodes, client, everything()),
            watch(&self.leases, client, everything().fields("metadata.namespace=kube-node-lease")),
            watch(&self.namespaces, client, everything()),
            watch(&self.services, client, everything()),
            watch(&self.endpoints, client, everything()),
            watch(&self.endpoint_slices, client, everything()),
            watch(&self.service_accounts, client, everything()),
            watch(&self.root_ca_maps, client, everything().fields("metadata.name=kube-root-ca.crt")),
            watch(&self.replica_sets, client, everything()),
            watch(&self.deployments, client, everything()),
            watch(&self.daemon_sets, client, everything()),
            watch(&self.stateful_sets, client, everything()),
            watch(&self.controller_revisions, client, everything()),
            watch(&self.claims, client, everything()),
            watch(&self.volumes, client, everything()),
            watch(&self.storage_classes, client, everything()),
            watch(&self.jobs, client, everything()),
            watch(&self.csrs, client, everything()),
            watch(&self.budgets, client, everything()),
        ]
    }

    /// Resolves when every first list is stored.
    pub(crate) async fn synced(&self) {
        self.pods.synced().await;
        self.nodes.synced().await;
        self.leases.synced().await;
        self.namespaces.synced().await;
        self.services.synced().await;
        self.endpoints.synced().await;
        self.endpoint_slices.synced().await;
        self.service_accounts.synced().await;
        self.root_ca_maps.synced().await;
        self.replica_sets.synced().await;
        self.deployments.synced().await;
        self.daemon_sets.synced().await;
        self.stateful_sets.synced().await;
        self.controller_revisions.synced().await;
        self.claims.synced().await;
        self.volumes.synced().await;
        self.storage_classes.synced().await;
        self.jobs.synced().await;
        self.csrs.synced().await;
        self.budgets.synced().await;
    }
}

fn watch<K>(informer: &Arc<Informer<K>>, client: &Client, config: watcher::Config) -> BoxFuture<'static, ()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    Box::pin(informer.clone().run(Api::all(client.clone()), config))
}

/// The [`BY_CONTROLLER`] value of a namespace's objects that have no controller.
pub(crate) fn orphan_value(namespace: &str) -> String {
    format!("orphan/{namespace}")
}

/// The [`BY_SERVICE`] value of a Service.
pub(crate) fn service_value(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

fn controller_index<K: Resource>(object: &K) -> Vec<String> {
    match controller_of(object.meta()) {
        Some(owner) => vec![owner.uid.clone()],
        None => vec![orphan_value(&object.namespace().unwrap_or_default())],
    }
}

fn node_index(pod: &Pod) -> Vec<String> {
    pod.spec.iter().filter_map(|spec| spec.node_name.clone()).filter(|node| !node.is_empty()).collect()
}

fn service_index(slice: &EndpointSlice) -> Vec<String> {
    let service = slice.labels().get("kubernetes.io/service-name");
    service.map(|name| service_value(&slice.namespace().unwrap_or_default(), name)).into_iter().collect()
}
