//! Every pod of the cluster by address, for people: logs of drops and lists of flows. Kept node by node, so that a pod
//! that comes or goes costs what its node has.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

use skep_model::NamespacedName;

use crate::api::Change;

/// A node's pods.
pub(crate) type Peers = Vec<(IpAddr, NamespacedName)>;

#[derive(Debug, Default)]
struct Inner {
    nodes: BTreeMap<String, Vec<IpAddr>>,
    names: HashMap<IpAddr, Arc<NamespacedName>>,
}

/// A shared register of pods.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodNames(Arc<RwLock<Inner>>);

impl PodNames {
    /// Takes in what nodes publish.
    pub(crate) fn handle(&self, change: Change<String, Peers>) {
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Upsert(node, pods) => inner.put(node, pods),
            Change::Remove(node) => inner.remove(&node),
            Change::Replace(all) => {
                *inner = Inner::default();
                all.into_iter().for_each(|(node, pods)| inner.put(node, pods));
            }
        }
    }

    /// The pod with this address.
    pub(crate) fn get(&self, address: IpAddr) -> Option<Arc<NamespacedName>> {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        inner.names.get(&address).cloned()
    }

    /// Whether the node has published anything.
    pub(crate) fn has_node(&self, node: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).nodes.contains_key(node)
    }

    /// How many pods are known.
    pub(crate) fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).names.len()
    }
}

impl Inner {
    fn put(&mut self, node: String, pods: Peers) {
        self.remove(&node);
        self.nodes.insert(node, pods.iter().map(|(ip, _)| *ip).collect());
        self.names.extend(pods.into_iter().map(|(ip, name)| (ip, Arc::new(name))));
    }

    fn remove(&mut self, node: &str) {
        for ip in self.nodes.remove(node).into_iter().flatten() {
            self.names.remove(&ip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_come_and_go_with_their_nodes() {
        let names = PodNames::default();
        let pod = |n: u8| (IpAddr::from([10, 244, 0, n]), NamespacedName::new("a", format!("p{n}")));
        names.handle(Change::Replace(vec![("n1".into(), vec![pod(1), pod(2)]), ("n2".into(), vec![pod(3)])]));
        names.handle(Change::Upsert("n1".into(), vec![pod(2)]));
        assert_eq!((names.len(), names.get([10, 244, 0, 1].into())), (2, None));
        names.handle(Change::Remove("n2".into()));
        assert_eq!((names.len(), names.has_node("n2"), names.has_node("n1")), (1, false, true));
        assert_eq!(names.get([10, 244, 0, 2].into()).unwrap().name, "p2");
    }
}
