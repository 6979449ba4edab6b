//! A node with the pods on it, summed up so that filters need not walk them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use kube::ResourceExt;

use crate::pod_info::{HostPort, PodInfo};
use crate::resources::Resources;

const ZONE: &str = "topology.kubernetes.io/zone";

/// A node and its pods.
#[derive(Debug, Default, Clone)]
pub struct NodeInfo {
    /// The object; none while only its pods are known.
    pub node: Option<Arc<Node>>,
    /// Name.
    pub name: String,
    /// What its pods may use.
    pub allocatable: Resources,
    /// How many pods it may have.
    pub max_pods: usize,
    /// What its pods ask for.
    pub requested: Resources,
    /// CPU and memory its pods are counted with when nodes are compared.
    pub weight: (i64, i64),
    /// Its pods.
    pub pods: Vec<Arc<PodInfo>>,
    /// Pods by controller.
    pub by_controller: HashMap<Arc<str>, i64>,
    /// Ports its pods take.
    pub ports: Vec<HostPort>,
    /// Pods with affinity terms of any sort.
    pub affinity_pods: usize,
    /// The zone it is in.
    pub zone: Option<String>,
    /// Sizes of the images it has.
    pub images: HashMap<String, i64>,
}

impl NodeInfo {
    /// A node of which only the name is known.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Takes over the object.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        let allocatable = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        self.allocatable = Resources::from_map(allocatable);
        let pods = allocatable
            .and_then(|map| map.get("pods"))
            .and_then(|raw| raw.0.parse::<skep_api::Quantity>().ok());
        self.max_pods = pods.and_then(|pods| usize::try_from(pods.value()).ok()).unwrap_or(0);
        self.zone = node.labels().get(ZONE).cloned();
        self.images = HashMap::new();
        for image in status.and_then(|status| status.images.as_ref()).into_iter().flatten() {
            for name in image.names.iter().flatten() {
                self.images.insert(name.clone(), image.size_bytes.unwrap_or(0));
            }
        }
        self.node = Some(node);
    }

    /// Labels.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.node.as_ref().map_or(&NONE, |node| node.labels())
    }

    /// A label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels().get(key).map(String::as_str)
    }

    /// Taints.
    pub fn taints(&self) -> &[Taint] {
        let spec = self.node.as_ref().and_then(|node| node.spec.as_ref());
        spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
    }

    /// Whether it is cordoned.
    pub fn is_unschedulable(&self) -> bool {
        let spec = self.node.as_ref().and_then(|node| node.spec.as_ref());
        spec.and_then(|spec| spec.unschedulable).unwrap_or(false)
    }

    /// Adds a pod.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.weight.0 += pod.weight.0;
        self.weight.1 += pod.weight.1;
        self.ports.extend(pod.host_ports.iter().cloned());
        self.affinity_pods += usize::from(pod.has_pod_affinity());
        if let Some(controller) = &pod.controller {
            *self.by_controller.entry(controller.clone()).or_default() += 1;
        }
        self.pods.push(pod);
    }

    /// Removes the pod with this uid.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let position = self.pods.iter().position(|pod| pod.uid == uid)?;
        let pod = self.pods.swap_remove(position);
        self.requested.subtract(&pod.requests);
        self.weight.0 -= pod.weight.0;
        self.weight.1 -= pod.weight.1;
        for port in &pod.host_ports {
            if let Some(position) = self.ports.iter().position(|own| own == port) {
                self.ports.swap_remove(position);
            }
        }
        self.affinity_pods -= usize::from(pod.has_pod_affinity());
        if let Some(controller) = &pod.controller
            && let Some(count) = self.by_controller.get_mut(controller)
        {
            *count -= 1;
            if *count == 0 {
                self.by_controller.remove(controller);
            }
        }
        Some(pod)
    }
}
