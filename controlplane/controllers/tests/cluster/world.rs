//! A cluster without machines: API server, controllers and scheduler in this process, kubelets played by hand.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use skep_apiserver::{ApiServer, ApiServerConfig};
use skep_controllers::ControllersConfig;
use skep_pki::{Authority, ServiceAccountKey};
use skep_runtime::{Drain, DrainTrigger};
use skep_scheduler::SchedulerConfig;
use skep_storage::MemoryStorage;

const DEADLINE: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(50);
const RENEWAL: Duration = Duration::from_millis(300);

/// The cluster.
pub struct World {
    api: Arc<ApiServer>,
    admin: Client,
    drain: Drain,
    authority: Arc<Authority>,
    silent: Arc<Mutex<HashSet<String>>>,
    loops: Mutex<Option<DrainTrigger>>,
    _trigger: DrainTrigger,
}

impl World {
    /// An empty cluster with its control plane running.
    pub async fn start() -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _already = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let (trigger, drain) = Drain::new();
        let key = ServiceAccountKey::create().unwrap();
        let config = ApiServerConfig::new("10.89.0.11".parse().unwrap(), key.private_pem());
        let api = ApiServer::open(Arc::new(MemoryStorage::new()), config).await.unwrap();
        api.run_background(&drain);
        api.bootstrap().await.unwrap();
        let admin = api.in_process_client("admin", &["system:masters"]);
        let authority = Arc::new(Authority::create("test").unwrap());
        let (silent, loops) = (Arc::default(), Mutex::default());
        let world = Self { api, admin, drain, authority, silent, loops, _trigger: trigger };
        world.start_control_loops();
        for namespace in ["default", "kube-node-lease"] {
            world.ensure_namespace(namespace).await;
        }
        let accounts = world.api::<k8s_openapi::api::core::v1::ServiceAccount>("default");
        world.until("pods may be made", || async { accounts.get("default").await.ok() }).await;
        world
    }

    fn start_control_loops(&self) {
        let (trigger, drain) = self.drain.child();
        let client = self.api.in_process_client("system:kube-controller-manager", &[]);
        let cidr = "10.244.0.0/16".parse().unwrap();
        let mut controllers = ControllersConfig::new(client, cidr, self.authority.clone());
        controllers.node_grace = Duration::from_secs(2);
        drain.spawn(skep_controllers::run(controllers, drain.clone()));
        let scheduler = SchedulerConfig::new(self.api.in_process_client("system:kube-scheduler", &[]));
        drain.spawn(skep_scheduler::run(scheduler, drain.clone()));
        *self.loops.lock() = Some(trigger);
    }

    /// Stops controllers and scheduler wherever they are, and starts new ones.
    pub async fn restart_control_loops(&self) {
        let trigger = self.loops.lock().take();
        if let Some(trigger) = trigger {
            assert!(trigger.drain(DEADLINE).await, "control loops did not stop");
        }
        self.start_control_loops();
    }

    /// A namespaced API as administrator.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.admin.clone(), namespace)
    }

    /// A cluster-scoped API as administrator.
    pub fn cluster_api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope>,
    {
        Api::all(self.admin.clone())
    }

    /// Waits until `probe` has an answer.
    pub async fn until<T, F>(&self, what: &str, probe: impl Fn() -> F) -> T
    where
        F: Future<Output = Option<T>>,
    {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            if let Some(answer) = probe().await {
                return answer;
            }
            assert!(tokio::time::Instant::now() < deadline, "in vain waited until {what}");
            tokio::time::sleep(STEP).await;
        }
    }

    /// Creates an object.
    pub async fn create<K>(&self, namespace: &str, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Serialize
            + Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>(namespace).create(&PostParams::default(), &object).await.unwrap()
    }

    /// All objects of a type in a namespace.
    pub async fn list<K>(&self, namespace: &str) -> Vec<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        self.api::<K>(namespace).list(&Default::default()).await.unwrap().items
    }

    /// Creates a namespace.
    pub async fn create_namespace(&self, name: &str) {
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        self.cluster_api::<Namespace>().create(&PostParams::default(), &namespace).await.unwrap();
    }

    /// Creates a priority class.
    pub async fn create_priority_class(&self, name: &str, value: i32) {
        let mut class = PriorityClass { value: Some(value), ..PriorityClass::default() };
        class.metadata.name = Some(name.to_owned());
        self.cluster_api::<PriorityClass>().create(&PostParams::default(), &class).await.unwrap();
    }

    async fn ensure_namespace(&self, name: &str) {
        if self.cluster_api::<Namespace>().get_opt(name).await.unwrap().is_none() {
            self.create_namespace(name).await;
        }
    }

    /// Registers nodes until there are `count`, each with a kubelet that renews its lease.
    pub async fn add_nodes(&self, count: usize) {
        let nodes = self.cluster_api::<Node>();
        let have = nodes.list(&Default::default()).await.unwrap().items.len();
        for number in have..count {
            let name = format!("node-{number}");
            let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}});
            let node: Node = serde_json::from_value(node).unwrap();
            nodes.create(&PostParams::default(), &node).await.unwrap();
            let status = json!({"status": {
                "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
                "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            }});
            nodes.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
            self.drain.spawn_until_drained(renew(self.admin.clone(), name, self.silent.clone()));
        }
        self.until("nodes are free of taints", || async {
            let list = nodes.list(&Default::default()).await.ok()?.items;
            let tainted = |node: &Node| {
                let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
                taints.is_some_and(|taints| taints.iter().any(|taint| taint.key.ends_with("not-ready")))
            };
            (!list.iter().any(tainted)).then_some(())
        })
        .await;
    }

    /// The node's kubelet stops renewing its lease.
    pub fn silence(&self, node: &str) {
        self.silent.lock().insert(node.to_owned());
    }

    /// Does what kubelets would: starts bound pods, and lets deleted ones go.
    pub async fn play_kubelets(&self, namespace: &str) {
        let api = self.api::<Pod>(namespace);
        for (number, pod) in self.list::<Pod>(namespace).await.into_iter().enumerate() {
            let bound = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()).is_some();
            let name = pod.name_any();
            if pod.metadata.deletion_timestamp.is_some() {
                drop(api.delete(&name, &DeleteParams::default().grace_period(0)).await);
            } else if bound && pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()).is_none() {
                let status = json!({"status": {
                    "phase": "Running",
                    "podIP": format!("10.244.9.{}", number + 1),
                    "podIPs": [{"ip": format!("10.244.9.{}", number + 1)}],
                    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                }});
                drop(api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(status)).await);
            }
        }
    }

    /// Files a client certificate request as a bootstrapping kubelet would.
    pub async fn request_kubelet_certificate(&self, node: &str) -> Api<CertificateSigningRequest> {
        let client = self.api.in_process_client("system:bootstrap:abcdef", &["system:bootstrappers"]);
        let signer = "kubernetes.io/kube-apiserver-client-kubelet";
        file_request(client, node, signer, "client auth", kubelet_request(node, &[])).await;
        self.cluster_api()
    }

    /// Files a serving certificate request as the node itself would, named `NODE-serving`.
    pub async fn request_serving_certificate(&self, node: &str, ip: &str) -> Api<CertificateSigningRequest> {
        let client = self.api.in_process_client(&format!("system:node:{node}"), &["system:nodes"]);
        let name = format!("{node}-serving");
        let request = kubelet_request(node, &[ip]);
        file_request(client, &name, "kubernetes.io/kubelet-serving", "server auth", request).await;
        self.cluster_api()
    }
}

async fn file_request(client: Client, name: &str, signer: &str, usage: &str, pem: String) {
    let request = json!({
        "metadata": {"name": name},
        "spec": {
            "signerName": signer,
            "usages": [usage, "digital signature"],
            "request": k8s_openapi::ByteString(pem.into_bytes()),
        },
    });
    let request: CertificateSigningRequest = serde_json::from_value(request).unwrap();
    Api::all(client).create(&PostParams::default(), &request).await.unwrap();
}

async fn renew(client: Client, node: String, silent: Arc<Mutex<HashSet<String>>>) {
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let lease = json!({"metadata": {"name": node}, "spec": {"holderIdentity": node}});
    let lease: Lease = serde_json::from_value(lease).unwrap();
    drop(leases.create(&PostParams::default(), &lease).await);
    loop {
        tokio::time::sleep(RENEWAL).await;
        if silent.lock().contains(&node) {
            continue;
        }
        let now = format!("{:.6}", k8s_openapi::jiff::Timestamp::now());
        let renewal = json!({"spec": {"renewTime": now}});
        drop(leases.patch(&node, &PatchParams::default(), &Patch::Merge(renewal)).await);
    }
}

/// The PKCS #10 request of a kubelet; with addresses for serving, without for its client certificate.
fn kubelet_request(node: &str, ips: &[&str]) -> String {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("system:node:{node}"));
    params.subject_alt_names = ips.iter().map(|ip| rcgen::SanType::IpAddress(ip.parse().unwrap())).collect();
    params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}
