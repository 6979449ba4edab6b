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
    /// Nodes (by name) that have pods of a controller, and how many.
    controllers: HashMap<Arc<str>, HashMap<String, usize>>,
    /// Nodes by zone.
    zones: HashMap<String, usize>,
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

    /// The nodes that have pods of a controller.
    pub fn nodes_with(&self, controller: &str) -> impl Iterator<Item = &NodeInfo> {
        let names = self.controllers.get(controller).into_iter().flat_map(HashMap::keys);
        names.filter_map(|name| self.node(name))
    }

    /// How many zones there are.
    pub fn zones(&self) -> usize {
        self.zones.len()
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
        let entry = self.entry(&node.name_any());
        let before = entry.zone.clone();
        entry.set_node(node);
        let after = entry.zone.clone();
        self.move_zone(before, after);
    }

    /// Removes a node; its pods stay counted until they are gone too.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(index) = self.by_name.get(name).copied() {
            self.nodes[index].node = None;
            let zone = self.nodes[index].zone.take();
            self.move_zone(zone, None);
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
            self.leave(&pod, &node);
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
        if let Some(controller) = &pod.controller {
            let nodes = self.controllers.entry(controller.clone()).or_default();
            *nodes.entry(node.to_owned()).or_default() += 1;
        }
        self.entry(node).add(pod);
    }

    /// Counts a pod of a controller off its node.
    fn leave(&mut self, pod: &PodInfo, node: &str) {
        let Some(controller) = &pod.controller else { return };
        let Some(nodes) = self.controllers.get_mut(controller) else { return };
        if let Some(count) = nodes.get_mut(node) {
            *count -= 1;
            if *count == 0 {
                nodes.remove(node);
            }
        }
        if nodes.is_empty() {
            self.controllers.remove(controller);
        }
    }

    fn move_zone(&mut self, before: Option<String>, after: Option<String>) {
        if before == after {
            return;
        }
        if let Some(zone) = before
            && let Some(count) = self.zones.get_mut(&zone)
        {
            *count -= 1;
            if *count == 0 {
                self.zones.remove(&zone);
            }
        }
        if let Some(zone) = after {
            *self.zones.entry(zone).or_default() += 1;
        }
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

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    fn node(name: &str, zone: &str) -> Arc<Node> {
        let labels = json!({"topology.kubernetes.io/zone": zone});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap())
    }

    fn pod(uid: &str, node: Option<&str>) -> Arc<PodInfo> {
        let owner =
            json!([{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "owner", "controller": true}]);
        let meta = json!({"name": uid, "uid": uid, "ownerReferences": owner});
        let pod: Pod =
            serde_json::from_value(json!({"metadata": meta, "spec": {"containers": [], "nodeName": node}}))
                .unwrap();
        Arc::new(PodInfo::new(Arc::new(pod)))
    }

    fn counted(cache: &Cache) -> usize {
        cache.nodes_with("owner").map(|node| node.pods.len()).sum()
    }

    #[test]
    fn assumed_pod_is_counted_until_confirmed_or_forgotten() {
        let mut cache = Cache::default();
        cache.set_node(node("a", "z"));
        cache.assume(pod("p", None), "a");
        cache.confirm(pod("p", Some("a")));
        assert_eq!(counted(&cache), 1);
        cache.forget("p");
        assert_eq!(counted(&cache), 1, "a confirmed pod is not forgotten");
        cache.assume(pod("q", None), "a");
        cache.forget("q");
        assert_eq!(counted(&cache), 1);
        assert!(cache.remove_pod("p"));
        assert_eq!(counted(&cache), 0);
    }

    #[test]
    fn removed_node_is_remembered_while_it_has_pods() {
        let mut cache = Cache::default();
        cache.set_node(node("a", "z1"));
        cache.set_node(node("b", "z2"));
        cache.confirm(pod("p", Some("a")));
        cache.remove_node("a");
        assert_eq!((cache.zones(), cache.nodes().len()), (1, 2));
        cache.remove_pod("p");
        assert_eq!(cache.nodes().len(), 1);
        assert_eq!(cache.node("b").map(|node| node.name.as_str()), Some("b"));
    }
}
