//! The registry in force. Readers take a snapshot; installing a custom resource swaps in a new one.

use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;
use skep_registry::{Registry, Resource};
use skep_storage::{Attributes, AttributesFn, Key, ResourceId};

/// Shared handle to the current registry.
#[derive(Clone)]
pub struct RegistryView {
    current: Arc<RwLock<Arc<Registry>>>,
}

impl RegistryView {
    /// The built-in resources.
    pub fn builtin() -> Self {
        Self { current: Arc::new(RwLock::new(Arc::new(Registry::builtin()))) }
    }

    /// The registry as it is now.
    pub fn snapshot(&self) -> Arc<Registry> {
        Arc::clone(&self.current.read())
    }

    /// Replaces the registry by a changed copy.
    pub fn change(&self, change: impl FnOnce(&mut Registry)) {
        let mut current = self.current.write();
        let mut next = Registry::clone(&current);
        change(&mut next);
        *current = Arc::new(next);
    }

    /// How the watch cache finds labels and selectable fields.
    pub fn attributes(&self) -> AttributesFn {
        let view = self.clone();
        Arc::new(move |key, json| view.attributes_of(key, json).unwrap_or_default())
    }

    fn attributes_of(&self, key: &Key, json: &[u8]) -> Option<Attributes> {
        let object: Value = serde_json::from_slice(json).ok()?;
        let resource = self.stored(key.resource())?;
        let (labels, fields) = resource.attributes(&resource.from_storage(object));
        Some(Attributes::new(labels, fields))
    }

    /// Some served version of what is stored under an id.
    pub fn stored(&self, id: &ResourceId) -> Option<Arc<Resource>> {
        let registry = self.snapshot();
        registry
            .resources()
            .iter()
            .find(|r| &*r.storage_id.group == id.group() && &*r.storage_id.resource == id.resource())
            .cloned()
    }
}
