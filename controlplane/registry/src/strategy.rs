//! What is special about a built-in kind, as a table of pure functions. A resource's file fills in what it needs and
//! takes the rest from [`Strategy::BASE`].

use jiff::Timestamp;
use serde_json::Value;

use crate::error::Errors;
use crate::field::{copy, remove};
use crate::metadata::NameRule;
use crate::row;

/// Takes the fields that a field selector may name.
pub(crate) type FieldSink<'a> = &'a mut dyn FnMut(&'static str, String);

/// Differences of one kind from the plain kind.
#[derive(Clone, Copy)]
pub(crate) struct Strategy {
    /// What its name may be.
    pub(crate) name: NameRule,
    /// Counts changes of the spec in metadata.generation.
    pub(crate) generation: bool,
    /// Its status is written through the status subresource only.
    pub(crate) status: bool,
    /// An update may leave out the resourceVersion.
    pub(crate) unconditional_update: bool,
    /// Fields that a field selector may name, besides name and namespace.
    pub(crate) selectable: &'static [&'static str],
    /// Fills in what the request left out.
    pub(crate) default: fn(&mut Value),
    /// Last changes before a create is validated.
    pub(crate) prepare_create: fn(&mut Value),
    /// Last changes before an update is validated.
    pub(crate) prepare_update: fn(&mut Value, &Value),
    /// Last changes before a status update is validated.
    pub(crate) prepare_status: fn(&mut Value, &Value),
    /// Whether the object is right in itself.
    pub(crate) validate: fn(&Value, &mut Errors),
    /// Whether the change is allowed; runs besides `validate`.
    pub(crate) validate_change: fn(&Value, &Value, &mut Errors),
    /// Whether the new status is right.
    pub(crate) validate_status: fn(&Value, &Value, &mut Errors),
    /// What is accepted but unwise.
    pub(crate) warnings: fn(&Value, &mut Vec<String>),
    /// The values of the selectable fields.
    pub(crate) fields: fn(&Value, FieldSink<'_>),
    /// The cells of its table row.
    pub(crate) row: fn(&Value, Timestamp) -> Vec<Value>,
}

impl Strategy {
    /// A kind with nothing special.
    pub(crate) const BASE: Self = Self {
        name: NameRule::Subdomain,
        generation: false,
        status: false,
        unconditional_update: true,
        selectable: &[],
        default: |_| {},
        prepare_create: |_| {},
        prepare_update: |_, _| {},
        prepare_status: |_, _| {},
        validate: |_, _| {},
        validate_change: |_, _, _| {},
        validate_status: |_, _, _| {},
        warnings: |_, _| {},
        fields: |_, _| {},
        row: |object, now| vec![row::name(object), row::age(object, now)],
    };

    /// A kind with a spec that is counted and a status of its own.
    pub(crate) const WITH_STATUS: Self = Self { generation: true, status: true, ..Self::BASE };
}

/// Keeps everything but the status (and metadata) as it was: what a status update may change.
pub(crate) fn keep_all_but_status(new: &mut Value, old: &Value) {
    let Some(members) = old.as_object() else { return };
    for name in members.keys().filter(|n| !matches!(n.as_str(), "metadata" | "status")) {
        copy(name, old, new);
    }
    let added: Vec<String> = new
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, _)| k.clone())
        .filter(|k| !members.contains_key(k) && k != "status" && k != "metadata")
        .collect();
    for name in added {
        remove(new, &name);
    }
}
