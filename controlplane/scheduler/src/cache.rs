//! The scheduler's picture of the cluster: nodes with their pods, including pods it has placed but not yet seen there.
//!
//! A pod is assumed when a decision is made, confirmed when the watch shows it on its node, and forgotten when binding
//! fails. Every change touches one node.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// Nodes, pods and namespace labels.
#[derive(Debug, Default)]
pub struct Cache {
    nodes: Vec<NodeInfo>,
    by_name: HashMap<String, usize>,
    /// Node name by pod uid, and whether the pod is only assumed there.
    placed: HashMap<String, (String, Placement)>,
    namespaces: HashMap<String, BTreeMap<String, String>>,
    affinity_pods: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placement {
    Assumed,
    Confirmed,
}

impl Cache {
    /// Every node, known or only named by its pods.
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.by_name.get(name).map(|index| &self.nodes[*index])
    }

    /// Whether any pod anywhere has affinity terms.
    pub fn has_affinity_pods(&self) -> bool {
        self.affinity_pods > 0
    }

    /// Labels of a namespace.
    pub fn namespace_labels(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(name)
    }

    /// Sets or removes a namespace's labels.
    pub fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        match labels {
            Some(labels) => drop(self.namespaces.insert(name.to_owned(), labels)),
            None => drop(self.namespaces.remove(name)),
        }
    }

    /// Adds or changes a node.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.name_any();
        self.entry(&name).set_node(node);
    }

    /// Removes a node; its pods stay counted until they are gone too.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(index) = self.by_name.get(name).copied() {
            self.nodes[index].node = None;
            self.drop_if_empty(index);
        }
    }

    /// Puts a pod on a node before the API has confirmed it.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.place(pod, node, Placement::Assumed);
    }

    /// Takes an assumed pod back. A confirmed one stays.
    pub fn forget(&mut self, uid: &str) {
        if self.placed.get(uid).is_some_and(|(_, placement)| *placement == Placement::Assumed) {
            self.remove_pod(uid);
        }
    }

    /// The watch shows `pod` on its node.
    pub fn confirm(&mut self, pod: Arc<PodInfo>) {
        if let Some(node) = pod.node_name.clone() {
            self.place(pod, &node, Placement::Confirmed);
        }
    }

    /// Removes a pod that is gone or finished. Returns whether it was on a node.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some((node, _)) = self.placed.remove(uid) else { return false };
        let Some(index) = self.by_name.get(&node).copied() else { return false };
        if let Some(pod) = self.nodes[index].remove(uid) {
            self.affinity_pods -= usize::from(pod.has_pod_affinity());
        }
        self.drop_if_empty(index);
        true
    }

    /// Whether the pod is on a node, or assumed to be.
    pub fn is_placed(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    fn place(&mut self, pod: Arc<PodInfo>, node: &str, placement: Placement) {
        self.remove_pod(&pod.uid);
        self.affinity_pods += usize::from(pod.has_pod_affinity());
        self.placed.insert(pod.uid.clone(), (node.to_owned(), placement));
        self.entry(node).add(pod);
    }

    fn entry(&mut self, name: &str) -> &mut NodeInfo {
        let index = match self.by_name.get(name) {
            Some(index) => *index,
            None => {
                self.nodes.push(NodeInfo::named(name));
                self.by_name.insert(name.to_owned(), self.nodes.len() - 1);
                self.nodes.len() - 1
            }
        };
        &mut self.nodes[index]
    }

    fn drop_if_empty(&mut self, index: usize) {
        if self.nodes[index].node.is_some() || !self.nodes[index].pods.is_empty() {
            return;
        }
        let gone = self.nodes.swap_remove(index);
        self.by_name.remove(&gone.name);
        if let Some(moved) = self.nodes.get(index) {
            self.by_name.insert(moved.name.clone(), index);
        }
    }
}
