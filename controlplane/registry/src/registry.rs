//! Finds resources by path, kind or group. A registry is a value: cheap to clone, changed only by installing or
//! removing custom resource definitions.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use serde_json::Value;
use thiserror::Error;

use crate::conversion::Conversion;
use crate::custom;
use crate::group;
use crate::resource::{Behaviour, Resource, StorageId, Subresource};
use crate::row::Column;
use crate::schema::{GroupVersionKind, Kind, Node, Schema, builtin};
use crate::table::{self, Entry};

/// Why a definition cannot be installed.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum InstallError {
    /// The definition lacks a field that validation requires.
    #[error("custom resource definition lacks {0}: validate it before installing")]
    Incomplete(&'static str),
}

/// The versions of a group, the preferred one first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Name, empty for core.
    pub name: Box<str>,
    /// Versions, the preferred one first.
    pub versions: Vec<Box<str>>,
}

/// Group, version and plural.
type ResourcePath = (Box<str>, Box<str>, Box<str>);

/// All resources that are served.
#[derive(Clone)]
pub struct Registry {
    resources: Vec<Arc<Resource>>,
    by_path: HashMap<ResourcePath, Arc<Resource>>,
    groups: Vec<Group>,
}

static BUILTIN: LazyLock<Registry> = LazyLock::new(build);

impl Registry {
    /// The built-in resources.
    #[must_use]
    pub fn builtin() -> Self {
        BUILTIN.clone()
    }

    /// The resource of that path.
    #[must_use]
    pub fn lookup(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.by_path.get(&(group.into(), version.into(), plural.into())).cloned()
    }

    /// The resource of that kind.
    #[must_use]
    pub fn lookup_kind(&self, gvk: &GroupVersionKind) -> Option<Arc<Resource>> {
        let same =
            |r: &&Arc<Resource>| r.kind == gvk.kind && r.version == gvk.version && r.group == gvk.group;
        self.resources.iter().find(same).cloned()
    }

    /// All resources, in discovery's order.
    #[must_use]
    pub fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// The resources of one group version.
    pub fn in_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.resources.iter().filter(move |r| &*r.group == group && &*r.version == version)
    }

    /// All groups with their versions, in discovery's order.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The schema of any built-in kind, also of those that are no resource: `autoscaling/v1 Scale`,
    /// `policy/v1 Eviction`, `v1 Binding`, `authentication.k8s.io/v1 TokenRequest`, `meta.k8s.io/v1 DeleteOptions`.
    #[must_use]
    pub fn schema_of(&self, gvk: &GroupVersionKind) -> Option<Schema> {
        if let Some(resource) = self.lookup_kind(gvk) {
            return Some(resource.schema().clone());
        }
        builtin_schema(gvk)
    }

    /// Serves the versions of a CustomResourceDefinition (and no others of its group and plural).
    ///
    /// # Errors
    /// When the definition is not valid.
    pub fn install_crd(&mut self, definition: &Value) -> Result<(), InstallError> {
        let resources = custom::resources(definition)?;
        self.remove_crd(definition);
        self.resources.extend(resources.into_iter().map(Arc::new));
        self.index();
        Ok(())
    }

    /// Stops serving a CustomResourceDefinition.
    pub fn remove_crd(&mut self, definition: &Value) {
        let group = crate::field::text(definition, &["spec", "group"]);
        let plural = crate::field::text(definition, &["spec", "names", "plural"]);
        self.resources.retain(|r| r.builtin || &*r.group != group || &*r.plural != plural);
        self.index();
    }

    fn index(&mut self) {
        self.by_path = HashMap::with_capacity(self.resources.len());
        self.groups = Vec::new();
        for resource in &self.resources {
            let path = (resource.group.clone(), resource.version.clone(), resource.plural.clone());
            self.by_path.insert(path, Arc::clone(resource));
            let at = match self.groups.iter().position(|g| g.name == resource.group) {
                Some(at) => at,
                None => {
                    self.groups.push(Group { name: resource.group.clone(), versions: Vec::new() });
                    self.groups.len() - 1
                }
            };
            let versions = &mut self.groups[at].versions;
            if !versions.contains(&resource.version) {
                versions.push(resource.version.clone());
            }
        }
        for group in &mut self.groups {
            group.versions.sort_by_key(|v| custom::version_order(v));
        }
    }
}

fn build() -> Registry {
    let resources = table::resources().iter().filter_map(builtin_resource).map(Arc::new).collect();
    let mut registry = Registry { resources, by_path: HashMap::new(), groups: Vec::new() };
    registry.index();
    registry
}

fn builtin_schema(gvk: &GroupVersionKind) -> Option<Schema> {
    let types = builtin::types();
    let id = types.id(&builtin::object_of(gvk)?.name)?;
    Some(Schema::new(Arc::clone(types), Node::of(Kind::Object(id))))
}

fn builtin_resource(entry: &Entry) -> Option<Resource> {
    let gvk = GroupVersionKind::new(entry.group, entry.version, entry.kind);
    let schema = builtin_schema(&gvk)?;
    let columns = table::columns(entry.group, entry.version, entry.plural)
        .unwrap_or_else(|| vec![Column::new("Name", "string", "name"), Column::new("Age", "string", "")]);
    let (storage, storage_version, conversion) = stored(entry);
    Some(Resource {
        group: entry.group.into(),
        version: entry.version.into(),
        kind: entry.kind.into(),
        list_kind: format!("{}List", entry.kind).into(),
        plural: entry.plural.into(),
        singular: entry.singular.into(),
        short_names: owned(&entry.short_names),
        categories: owned(&entry.categories),
        namespaced: entry.namespaced,
        verbs: owned(&entry.verbs),
        subresources: entry.subresources.iter().map(|s| subresource(entry, s)).collect(),
        storage_id: StorageId { group: storage.into(), resource: entry.plural.into() },
        storage_version,
        builtin: true,
        schema,
        columns,
        conversion,
        behaviour: Behaviour::Builtin(group::strategy(entry.group, entry.plural)),
    })
}

fn subresource(entry: &Entry, sub: &table::SubEntry) -> Subresource {
    let own = sub.version.is_empty();
    let (group, version) = if own { (entry.group, entry.version) } else { (sub.group, sub.version) };
    Subresource {
        name: sub.name.into(),
        gvk: GroupVersionKind::new(group, version, sub.kind),
        verbs: owned(&sub.verbs),
    }
}

fn owned(words: &[&str]) -> Vec<Box<str>> {
    words.iter().map(|w| (*w).into()).collect()
}

/// Storage group, stored apiVersion and how to get there.
fn stored(entry: &Entry) -> (&'static str, Box<str>, Conversion) {
    match (entry.group, entry.version, entry.plural) {
        ("events.k8s.io", _, "events") => ("", "v1".into(), Conversion::Event),
        ("autoscaling", "v1", _) => ("autoscaling", "autoscaling/v2".into(), Conversion::Autoscaler),
        (group, version, kind) => {
            (group, GroupVersionKind::new(group, version, kind).api_version().into(), Conversion::Identity)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_builtins_by_path_and_kind() {
        let registry = Registry::builtin();
        let pods = registry.lookup("", "v1", "pods").unwrap();
        assert_eq!((&*pods.kind, &*pods.list_kind), ("Pod", "PodList"));
        let gvk = GroupVersionKind::new("apps", "v1", "Deployment");
        assert_eq!(&*registry.lookup_kind(&gvk).unwrap().plural, "deployments");
        assert!(registry.lookup("apps", "v1", "pods").is_none());
    }

    #[test]
    fn knows_kinds_that_are_no_resource() {
        let registry = Registry::builtin();
        for (group, version, kind) in [
            ("autoscaling", "v1", "Scale"),
            ("policy", "v1", "Eviction"),
            ("", "v1", "Binding"),
            ("authentication.k8s.io", "v1", "TokenRequest"),
            ("meta.k8s.io", "v1", "DeleteOptions"),
        ] {
            assert!(registry.schema_of(&GroupVersionKind::new(group, version, kind)).is_some(), "{kind}");
        }
    }

    #[test]
    fn events_of_both_groups_share_storage() {
        let registry = Registry::builtin();
        let core = registry.lookup("", "v1", "events").unwrap();
        let events = registry.lookup("events.k8s.io", "v1", "events").unwrap();
        assert_eq!(core.storage_id, events.storage_id);
        assert!(events.converts() && !core.converts());
    }

    #[test]
    fn every_row_has_a_cell_for_each_column() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        for resource in Registry::builtin().resources() {
            let mut object = serde_json::json!({"metadata": {"name": "a", "namespace": "b"}});
            assert_eq!(
                resource.row(&object, now).len(),
                resource.columns().len(),
                "bare {}",
                resource.plural
            );
            resource.default(&mut object);
            resource.prepare_create(&mut object);
            assert_eq!(
                resource.row(&object, now).len(),
                resource.columns().len(),
                "filled {}",
                resource.plural
            );
        }
    }

    #[test]
    fn filling_in_twice_changes_nothing() {
        for resource in Registry::builtin().resources() {
            let mut once = serde_json::json!({"apiVersion": resource.api_version(), "kind": resource.kind,
                "metadata": {"name": "a"}});
            resource.default(&mut once);
            let mut twice = once.clone();
            resource.default(&mut twice);
            assert_eq!(once, twice, "{}", resource.plural);
        }
    }

    #[test]
    fn every_default_passes_its_own_decoding() {
        for resource in Registry::builtin().resources() {
            let mut object =
                serde_json::json!({"apiVersion": resource.api_version(), "metadata": {"name": "a"}});
            resource.default(&mut object);
            let decoded = resource.decode_value(object, crate::FieldValidation::Strict);
            assert!(decoded.is_ok(), "{}: {decoded:?}", resource.plural);
        }
    }

    #[test]
    fn preferred_version_comes_first() {
        let registry = Registry::builtin();
        let autoscaling = registry.groups().iter().find(|g| &*g.name == "autoscaling").unwrap();
        assert_eq!(autoscaling.versions, ["v2".into(), "v1".into()]);
    }
}
