//! Server-side apply: who owns which field, and what a manager's configuration does to the live object.
//!
//! Ownership (`metadata.managedFields`) is kept for objects that have been applied. An object that never was carries
//! none; when it is applied first, everything it holds belongs to the manager `before-first-apply`, so that nothing is
//! taken over unasked. From then on updates are tracked too.
//!
//! * `fields`: sets of fields and their wire form;
//! * `typed`: what a value owns, what differs between two, merging and removing, by schema;
//! * `managers`: the list in `managedFields`;
//! * here: one apply, as a pure function.

pub(crate) mod fields;
pub(crate) mod managers;
pub(crate) mod typed;

use serde_json::Value;
use skep_registry::SchemaRef;

use crate::apply::fields::FieldSet;
use crate::apply::managers::{Entry, Identity, Managers};
use crate::meta;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// One apply.
pub struct Apply<'a> {
    /// The applied configuration, as the client sent it.
    pub config: &'a Value,
    /// Schema of the kind.
    pub schema: SchemaRef<'a>,
    /// Who applies.
    pub identity: Identity,
    /// Take over fields that others own with other values.
    pub force: bool,
    /// Time of the apply.
    pub now: &'a str,
}

/// A field that somebody else owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Who owns it.
    pub manager: String,
    /// Where it is.
    pub field: String,
}

impl Apply<'_> {
    /// A new object's ownership.
    pub fn first(&self) -> Value {
        let mut managers = Managers::default();
        managers.put(self.entry(Some(self.now.to_owned())));
        managers.to_value()
    }

    fn entry(&self, time: Option<String>) -> Entry {
        Entry { identity: self.identity.clone(), time, set: typed::owned(self.config, self.schema) }
    }

    /// The live object after the apply, `managedFields` included; or what stands against it.
    pub fn onto(&self, live: &Value) -> Result<Value, Vec<Conflict>> {
        let mut managers = Managers::read(&live["metadata"]["managedFields"]);
        if managers.is_empty() {
            managers.put(self.before_first(live));
        }
        let wanted = typed::owned(self.config, self.schema);
        let previous = managers.set_of(&self.identity);
        let mut merged = typed::merge(live, self.config, self.schema);
        let changed = typed::changed(live, &merged, self.schema).intersection(&wanted);
        let conflicts = managers.conflicts(&self.identity, &changed);
        if !conflicts.is_empty() && !self.force {
            return Err(conflicts);
        }
        managers.take_over(&self.identity, &changed);
        let mut dropped = previous.difference(&wanted);
        for other in managers.others(&self.identity) {
            dropped = dropped.difference(&other.set);
        }
        typed::remove(&mut merged, &dropped, self.schema);
        let touched = !typed::changed(live, &merged, self.schema).is_empty()
            || !typed::changed(&merged, live, self.schema).is_empty();
        let time = if touched { Some(self.now.to_owned()) } else { managers.time_of(&self.identity) };
        managers.put(Entry { identity: self.identity.clone(), time, set: wanted });
        match managers.to_value() {
            Value::Null => meta::clear(&mut merged, "managedFields"),
            list => meta::set(&mut merged, "managedFields", list),
        }
        Ok(merged)
    }

    /// The manager of an object that was never applied. What kubectl applied from its side is kubectl's to change.
    fn before_first(&self, live: &Value) -> Entry {
        let mut set = typed::owned(live, self.schema);
        if self.identity.manager == "kubectl" {
            set = set.difference(&self.client_side(live));
        }
        let identity = Identity {
            manager: "before-first-apply".to_owned(),
            operation: "Update".to_owned(),
            subresource: None,
            ..self.identity.clone()
        };
        Entry { identity, time: Some(self.now.to_owned()), set }
    }

    fn client_side(&self, live: &Value) -> FieldSet {
        let annotation = live["metadata"]["annotations"][LAST_APPLIED].as_str();
        let config: Option<Value> = annotation.and_then(|text| serde_json::from_str(text).ok());
        config.map(|config| typed::owned(&config, self.schema)).unwrap_or_default()
    }
}

/// Accounts for an update of an object whose ownership is kept: what changed is the updater's now.
pub fn track(old: &Value, new: &mut Value, schema: SchemaRef<'_>, identity: &Identity, now: &str) {
    let given = new["metadata"].get("managedFields").filter(|list| !list.is_null()).cloned();
    let base = given.unwrap_or_else(|| old["metadata"]["managedFields"].clone());
    let mut managers = Managers::read(&base);
    if !managers.is_empty() {
        let changed = typed::changed(old, new, schema);
        let gone = typed::changed(new, old, schema).difference(&typed::owned(new, schema));
        managers.update(identity, &changed, &gone, now);
    }
    match managers.to_value() {
        Value::Null => meta::clear(new, "managedFields"),
        list => meta::set(new, "managedFields", list),
    }
}

#[cfg(test)]
mod tests;
