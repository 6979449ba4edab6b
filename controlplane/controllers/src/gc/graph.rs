//! Who owns whom. Pure: watch events in, work out.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::ApiResource;

/// Finalizer of an owner that waits for its dependents.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an owner that is to leave its dependents behind.
pub(crate) const ORPHAN: &str = "orphan";

/// Something to look at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// Whether this object (by uid) is to be deleted, or its foreground deletion can end.
    Check(String),
    /// Cut this owner's dependents loose.
    Orphan(String),
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Check(uid) => write!(f, "check {uid}"),
            Self::Orphan(uid) => write!(f, "orphan {uid}"),
        }
    }
}

/// An object of the graph.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Its type.
    pub(crate) kind: Arc<ApiResource>,
    /// Its namespace; empty for cluster-scoped types.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// Its owners.
    pub(crate) owners: Vec<OwnerReference>,
    /// Whether its deletion has begun.
    pub(crate) deleting: bool,
    /// Whether its deletion waits for dependents.
    pub(crate) foreground: bool,
}

/// The graph.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    nodes: HashMap<String, Node>,
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    /// An object by uid.
    pub(crate) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The known dependents of an object, known or not itself.
    pub(crate) fn dependents(&self, uid: &str) -> impl Iterator<Item = (&String, &Node)> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.nodes.get_key_value(uid))
    }

    /// Dependents that hold up the foreground deletion of `uid`.
    pub(crate) fn blocking(&self, uid: &str) -> Vec<(String, Node)> {
        let blocks = |node: &Node| {
            node.owners.iter().any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
        };
        self.dependents(uid)
            .filter(|(_, node)| blocks(node))
            .map(|(uid, node)| (uid.clone(), node.clone()))
            .collect()
    }

    /// The uids of all objects of a type.
    pub(crate) fn of_kind(&self, kind: &ApiResource) -> Vec<String> {
        self.nodes.iter().filter(|(_, node)| *node.kind == *kind).map(|(uid, _)| uid.clone()).collect()
    }

    /// Takes in an object's metadata.
    pub(crate) fn upsert(&mut self, kind: &Arc<ApiResource>, meta: &ObjectMeta) -> Vec<Work> {
        let Some(uid) = meta.uid.clone() else { return Vec::new() };
        let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|name| name == finalizer);
        let deleting = meta.deletion_timestamp.is_some();
        let node = Node {
            kind: kind.clone(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting,
            foreground: deleting && has(FOREGROUND),
        };
        let mut work = Vec::new();
        let before = self.nodes.get(&uid);
        if deleting && has(ORPHAN) {
            work.push(Work::Orphan(uid.clone()));
        }
        if node.foreground && before.is_none_or(|before| !before.foreground) {
            work.push(Work::Check(uid.clone()));
            work.extend(self.dependents(&uid).map(|(uid, _)| Work::Check(uid.clone())));
        }
        let doubtful =
            |owner: &OwnerReference| self.nodes.get(&owner.uid).is_none_or(|owner| owner.foreground);
        if !deleting && node.owners.iter().any(doubtful) {
            work.push(Work::Check(uid.clone()));
        }
        let old_owners = before.map(|before| before.owners.clone()).unwrap_or_default();
        // An owner that waits for its dependents may be waiting for a reference that changed.
        let waits =
            |owner: &&OwnerReference| self.nodes.get(&owner.uid).is_some_and(|owner| owner.foreground);
        work.extend(old_owners.iter().filter(waits).map(|owner| Work::Check(owner.uid.clone())));
        self.relink(&uid, &old_owners, &node.owners);
        self.nodes.insert(uid, node);
        work
    }

    /// Takes an object out.
    pub(crate) fn remove(&mut self, uid: &str) -> Vec<Work> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        self.relink(uid, &node.owners, &[]);
        let dependents = self.dependents.get(uid).into_iter().flatten();
        let mut work: Vec<Work> = dependents.map(|uid| Work::Check(uid.clone())).collect();
        let waits =
            |owner: &&OwnerReference| self.nodes.get(&owner.uid).is_some_and(|owner| owner.foreground);
        work.extend(node.owners.iter().filter(waits).map(|owner| Work::Check(owner.uid.clone())));
        work
    }

    fn relink(&mut self, uid: &str, before: &[OwnerReference], after: &[OwnerReference]) {
        for owner in before {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        for owner in after {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn kind() -> Arc<ApiResource> {
        Arc::new(ApiResource::erase::<ConfigMap>(&()))
    }

    fn meta(uid: &str, owners: &[&str]) -> ObjectMeta {
        let owner = |uid: &&str| OwnerReference {
            uid: (*uid).to_owned(),
            block_owner_deletion: Some(true),
            ..OwnerReference::default()
        };
        ObjectMeta {
            uid: Some(uid.into()),
            name: Some(uid.into()),
            owner_references: Some(owners.iter().map(owner).collect()),
            ..ObjectMeta::default()
        }
    }

    fn deleting(mut meta: ObjectMeta, finalizer: &str) -> ObjectMeta {
        meta.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        meta.finalizers = Some(vec![finalizer.into()]);
        meta
    }

    fn check(uid: &str) -> Work {
        Work::Check(uid.into())
    }

    #[test]
    fn dependents_are_checked_when_their_owner_goes() {
        let mut graph = Graph::default();
        assert!(graph.upsert(&kind(), &meta("owner", &[])).is_empty());
        assert!(graph.upsert(&kind(), &meta("child", &["owner"])).is_empty());
        assert_eq!(graph.remove("owner"), [check("child")]);
    }

    #[test]
    fn object_with_an_unknown_owner_is_checked() {
        let mut graph = Graph::default();
        assert_eq!(graph.upsert(&kind(), &meta("child", &["nobody"])), [check("child")]);
    }

    #[test]
    fn foreground_deletion_waits_for_blocking_dependents() {
        let mut graph = Graph::default();
        graph.upsert(&kind(), &meta("owner", &[]));
        graph.upsert(&kind(), &meta("child", &["owner"]));
        let work = graph.upsert(&kind(), &deleting(meta("owner", &[]), FOREGROUND));
        assert_eq!(work, [check("owner"), check("child")]);
        assert_eq!(graph.blocking("owner").len(), 1);
        assert_eq!(graph.remove("child"), [check("owner")]);
        assert!(graph.blocking("owner").is_empty());
    }

    #[test]
    fn orphaning_is_asked_for_by_finalizer() {
        let mut graph = Graph::default();
        let work = graph.upsert(&kind(), &deleting(meta("owner", &[]), ORPHAN));
        assert_eq!(work, [Work::Orphan("owner".into())]);
    }
}
