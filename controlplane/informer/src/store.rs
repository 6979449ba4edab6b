//! An in-memory copy of all objects of one type, with indexes.
//!
//! Readers get `Arc`s and hold no lock while they use them. Written only by the [`Informer`](crate::Informer).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use kube::Resource;
use parking_lot::RwLock;

use crate::ObjectKey;

/// Computes the index values of an object; an object may have none or several.
pub type IndexFn<K> = fn(&K) -> Vec<String>;

/// All objects of one type.
pub struct Store<K> {
    inner: RwLock<Inner<K>>,
}

struct Inner<K> {
    namespaces: BTreeMap<String, BTreeMap<String, Arc<K>>>,
    indexes: HashMap<&'static str, Index<K>>,
}

struct Index<K> {
    values: IndexFn<K>,
    keys: HashMap<String, HashSet<ObjectKey>>,
}

impl<K: Resource> Store<K> {
    pub(crate) fn new(indexes: &[(&'static str, IndexFn<K>)]) -> Self {
        let indexes =
            indexes.iter().map(|(name, values)| (*name, Index { values: *values, keys: HashMap::new() }));
        Self { inner: RwLock::new(Inner { namespaces: BTreeMap::new(), indexes: indexes.collect() }) }
    }

    /// A store filled by hand, for tests of code that reads stores.
    pub fn from_objects(
        indexes: &[(&'static str, IndexFn<K>)],
        objects: impl IntoIterator<Item = K>,
    ) -> Self {
        let store = Self::new(indexes);
        for object in objects {
            store.insert(Arc::new(object));
        }
        store
    }

    /// The object stored under `key`.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.inner.read().get(key)
    }

    /// A cluster-scoped object by name.
    pub fn get_cluster(&self, name: &str) -> Option<Arc<K>> {
        self.inner.read().namespaces.get("")?.get(name).cloned()
    }

    /// Every object, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.inner.read().namespaces.values().flat_map(|objects| objects.values().cloned()).collect()
    }

    /// Every object of a namespace, ordered by name.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        let inner = self.inner.read();
        inner.namespaces.get(namespace).map(|objects| objects.values().cloned().collect()).unwrap_or_default()
    }

    /// The objects whose index `index` holds `value`, ordered by key. An unknown index is empty.
    pub fn by_index(&self, index: &str, value: &str) -> Vec<Arc<K>> {
        let inner = self.inner.read();
        let Some(keys) = inner.indexes.get(index).and_then(|index| index.keys.get(value)) else {
            return Vec::new();
        };
        let mut keys: Vec<&ObjectKey> = keys.iter().collect();
        keys.sort();
        keys.into_iter().filter_map(|key| inner.get(key)).collect()
    }

    /// Every key, in order.
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.inner
            .read()
            .namespaces
            .iter()
            .flat_map(|(namespace, objects)| {
                objects.keys().map(move |name| ObjectKey::namespaced(namespace.clone(), name.clone()))
            })
            .collect()
    }

    /// Stores `object` and returns what it replaces.
    pub(crate) fn insert(&self, object: Arc<K>) -> Option<Arc<K>> {
        let key = ObjectKey::of(&*object);
        let mut inner = self.inner.write();
        let old = inner
            .namespaces
            .entry(key.namespace.clone())
            .or_default()
            .insert(key.name.clone(), object.clone());
        inner.reindex(&key, old.as_deref(), Some(&*object));
        old
    }

    /// Removes and returns the object stored under `key`.
    pub(crate) fn remove(&self, key: &ObjectKey) -> Option<Arc<K>> {
        let mut inner = self.inner.write();
        let objects = inner.namespaces.get_mut(&key.namespace)?;
        let old = objects.remove(&key.name)?;
        if objects.is_empty() {
            inner.namespaces.remove(&key.namespace);
        }
        inner.reindex(key, Some(&*old), None);
        Some(old)
    }
}

impl<K> Inner<K> {
    fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.namespaces.get(&key.namespace)?.get(&key.name).cloned()
    }

    fn reindex(&mut self, key: &ObjectKey, old: Option<&K>, new: Option<&K>) {
        for index in self.indexes.values_mut() {
            for value in old.map(index.values).unwrap_or_default() {
                if let Some(keys) = index.keys.get_mut(&value) {
                    keys.remove(key);
                    if keys.is_empty() {
                        index.keys.remove(&value);
                    }
                }
            }
            for value in new.map(index.values).unwrap_or_default() {
                index.keys.entry(value).or_default().insert(key.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Pod, PodSpec};

    use super::*;

    fn pod(name: &str, node: &str) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.into());
        pod.metadata.namespace = Some("ns".into());
        pod.spec = Some(PodSpec { node_name: Some(node.into()), ..PodSpec::default() });
        Arc::new(pod)
    }

    fn by_node(pod: &Pod) -> Vec<String> {
        pod.spec.iter().filter_map(|spec| spec.node_name.clone()).collect()
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect()
    }

    #[test]
    fn index_follows_changes_and_removals() {
        let store: Store<Pod> = Store::new(&[("node", by_node)]);
        store.insert(pod("b", "n1"));
        store.insert(pod("a", "n1"));
        assert_eq!(names(&store.by_index("node", "n1")), ["a", "b"]);
        assert!(store.insert(pod("a", "n2")).is_some());
        assert_eq!(names(&store.by_index("node", "n1")), ["b"]);
        assert_eq!(names(&store.by_index("node", "n2")), ["a"]);
        store.remove(&ObjectKey::namespaced("ns", "a"));
        assert!(store.by_index("node", "n2").is_empty());
        assert_eq!(names(&store.list_in("ns")), ["b"]);
        assert!(store.list_in("other").is_empty());
    }
}
