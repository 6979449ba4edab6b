//! One kind as the API serves it: its names, and everything the API server asks about an object of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::conversion::Conversion;
use crate::custom::Custom;
use crate::decode::{DecodeError, FieldValidation, decode, decode_value};
use crate::error::{Errors, FieldError};
use crate::field::{copy, int, remove, text};
use crate::group::core::pod;
use crate::metadata::{self, NameRule};
use crate::row::Column;
use crate::schema::{GroupVersionKind, Schema};
use crate::strategy::{Strategy, keep_all_but_status};

/// Under which name objects are stored; kinds of several groups or versions may share one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StorageId {
    /// Group of the stored form.
    pub group: Box<str>,
    /// Plural name.
    pub resource: Box<str>,
}

/// A part of a resource with a path of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subresource {
    /// Last segment of its path.
    pub name: Box<str>,
    /// The kind it takes and answers.
    pub gvk: GroupVersionKind,
    /// Verbs it serves.
    pub verbs: Vec<Box<str>>,
}

/// One kind as the API serves it.
pub struct Resource {
    /// API group, empty for core.
    pub group: Box<str>,
    /// Version.
    pub version: Box<str>,
    /// Kind.
    pub kind: Box<str>,
    /// Kind of its lists.
    pub list_kind: Box<str>,
    /// Path segment.
    pub plural: Box<str>,
    /// Singular name.
    pub singular: Box<str>,
    /// Short names.
    pub short_names: Vec<Box<str>>,
    /// Categories such as `all`.
    pub categories: Vec<Box<str>>,
    /// Objects live in namespaces.
    pub namespaced: bool,
    /// Verbs it serves.
    pub verbs: Vec<Box<str>>,
    /// Its subresources.
    pub subresources: Vec<Subresource>,
    /// Under which name its objects are stored.
    pub storage_id: StorageId,
    /// `apiVersion` of the stored form.
    pub storage_version: Box<str>,
    /// Built in, in contrast to custom.
    pub builtin: bool,
    pub(crate) schema: Schema,
    pub(crate) columns: Vec<Column>,
    pub(crate) conversion: Conversion,
    pub(crate) behaviour: Behaviour,
}

pub(crate) enum Behaviour {
    Builtin(&'static Strategy),
    Custom(Box<Custom>),
}

impl Resource {
    /// Group, version and kind.
    #[must_use]
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(&self.group, &self.version, &self.kind)
    }

    /// `group/version`, or `version` for core.
    #[must_use]
    pub fn api_version(&self) -> String {
        self.gvk().api_version()
    }

    /// The subresource of that name.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| &*s.name == name)
    }

    /// Whether an update may leave out the resourceVersion, and then overwrites whatever is there.
    #[must_use]
    pub fn allows_unconditional_update(&self) -> bool {
        match &self.behaviour {
            Behaviour::Builtin(strategy) => strategy.unconditional_update,
            Behaviour::Custom(_) => false,
        }
    }

    /// Whether it serves the verb.
    #[must_use]
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| &**v == verb)
    }

    /// Field types, list types, merge keys, defaults, enums.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// A body (JSON or YAML) to a checked object, with the warnings to send.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(&self, body: &[u8], mode: FieldValidation) -> Result<(Value, Vec<String>), DecodeError> {
        match &self.behaviour {
            Behaviour::Builtin(_) => decode(&self.schema, &self.gvk(), body, mode),
            Behaviour::Custom(custom) => {
                let (value, duplicates) = crate::decode::parse(body)?;
                custom.decode(&self.gvk(), value, duplicates, mode)
            }
        }
    }

    /// The same for an object that is already parsed, such as the result of a patch.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode_value(
        &self,
        value: Value,
        mode: FieldValidation,
    ) -> Result<(Value, Vec<String>), DecodeError> {
        match &self.behaviour {
            Behaviour::Builtin(_) => decode_value(&self.schema, &self.gvk(), value, Vec::new(), mode),
            Behaviour::Custom(custom) => custom.decode(&self.gvk(), value, Vec::new(), mode),
        }
    }

    /// Fills in what the request left out. Idempotent.
    pub fn default(&self, object: &mut Value) {
        match &self.behaviour {
            Behaviour::Builtin(strategy) => {
                crate::schema::fill_defaults(object, self.schema.root());
                (strategy.default)(object);
            }
            Behaviour::Custom(custom) => custom.default(object),
        }
    }

    /// Status and generation of a new object, and what derives from its metadata: the caller has set uid (a Job's
    /// selector) and creationTimestamp (a volume's phase time) before.
    pub fn prepare_create(&self, object: &mut Value) {
        if self.has_status() {
            remove(object, "status");
        }
        if self.counts_generation() {
            object["metadata"]["generation"] = 1.into();
        }
        if let Behaviour::Builtin(strategy) = &self.behaviour {
            (strategy.prepare_create)(object);
            self.fill_status(object);
        }
    }

    /// Keeps the status, counts a change of the spec.
    pub fn prepare_update(&self, new: &mut Value, old: &Value) {
        if self.has_status() {
            copy("status", old, new);
        }
        if let Some(since) = old["metadata"].get("creationTimestamp") {
            new["metadata"]["creationTimestamp"] = since.clone();
        }
        if let Behaviour::Builtin(strategy) = &self.behaviour {
            (strategy.prepare_update)(new, old);
        }
        if self.counts_generation() {
            self.count_generation(new, old);
        }
    }

    /// Keeps everything but the status.
    pub fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        keep_all_but_status(new, old);
        metadata::keep_for_status(new, old, &self.behaviour);
        if let Behaviour::Builtin(strategy) = &self.behaviour {
            (strategy.prepare_status)(new, old);
        }
        if let Some(generation) = int(old, &["metadata", "generation"]) {
            new["metadata"]["generation"] = generation.into();
        }
    }

    /// What is wrong with a new object, metadata included.
    #[must_use]
    pub fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if self.has_verb("get") {
            metadata::validate(object, self.namespaced, self.name_rule(), &mut errors);
        }
        self.validate_content(object, None, &mut errors);
        errors.into_vec()
    }

    /// What is wrong with a changed object, metadata included.
    #[must_use]
    pub fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        metadata::validate(new, self.namespaced, NameRule::Any, &mut errors);
        metadata::validate_change(new, old, &mut errors);
        self.validate_content(new, Some(old), &mut errors);
        if let Behaviour::Builtin(strategy) = &self.behaviour {
            (strategy.validate_change)(new, old, &mut errors);
        }
        errors.into_vec()
    }

    /// What is wrong with a changed status, metadata included.
    #[must_use]
    pub fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        metadata::validate(new, self.namespaced, NameRule::Any, &mut errors);
        metadata::validate_change(new, old, &mut errors);
        match &self.behaviour {
            Behaviour::Builtin(strategy) => (strategy.validate_status)(new, old, &mut errors),
            Behaviour::Custom(custom) => custom.validate(new, Some(old), &mut errors),
        }
        errors.into_vec()
    }

    /// Keeps everything but what a pod subresource (`ephemeralcontainers`, `resize`) may change.
    pub fn prepare_subresource(&self, name: &str, new: &mut Value, old: &Value) {
        pod::prepare_subresource(name, new, old);
        self.count_generation(new, old);
    }

    /// What is wrong with a change through such a subresource.
    #[must_use]
    pub fn validate_subresource(&self, name: &str, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        metadata::validate(new, self.namespaced, NameRule::Any, &mut errors);
        metadata::validate_change(new, old, &mut errors);
        pod::validate_subresource(name, new, old, &mut errors);
        errors.into_vec()
    }

    /// What is accepted but unwise, to be sent as warnings.
    #[must_use]
    pub fn warnings(&self, object: &Value) -> Vec<String> {
        let mut out = Vec::new();
        if let Behaviour::Builtin(strategy) = &self.behaviour {
            (strategy.warnings)(object, &mut out);
        }
        out
    }

    /// Labels and selectable fields, for selectors and the watch cache.
    #[must_use]
    pub fn attributes(&self, object: &Value) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
        let labels = crate::field::members(object, &["metadata", "labels"])
            .map(|(k, v)| (k.to_owned(), v.as_str().unwrap_or_default().to_owned()))
            .collect();
        let mut fields = BTreeMap::new();
        fields.insert("metadata.name".to_owned(), text(object, &["metadata", "name"]).to_owned());
        if self.namespaced {
            fields
                .insert("metadata.namespace".to_owned(), text(object, &["metadata", "namespace"]).to_owned());
        }
        match &self.behaviour {
            Behaviour::Builtin(strategy) => {
                (strategy.fields)(object, &mut |name, value| {
                    fields.insert(name.to_owned(), value);
                });
            }
            Behaviour::Custom(custom) => fields.extend(custom.selectable_fields(object)),
        }
        (labels, fields)
    }

    /// Whether a field selector may name the field.
    #[must_use]
    pub fn is_selectable(&self, field: &str) -> bool {
        match (field, &self.behaviour) {
            ("metadata.name", _) => true,
            ("metadata.namespace", _) => self.namespaced,
            (field, Behaviour::Builtin(strategy)) => strategy.selectable.contains(&field),
            (field, Behaviour::Custom(custom)) => custom.is_selectable(field),
        }
    }

    /// The columns of its tables.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The cells of an object's table row, one a column.
    #[must_use]
    pub fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        match &self.behaviour {
            Behaviour::Builtin(strategy) => (strategy.row)(object, now),
            Behaviour::Custom(custom) => custom.row(object, now),
        }
    }

    /// The stored form: converted to the storage version, apiVersion, kind and metadata first, no resourceVersion.
    #[must_use]
    pub fn canonical(&self, object: &Value) -> Bytes {
        let converted = self.conversion.to_storage(object, &self.storage_version);
        let object = converted.as_ref().unwrap_or(object);
        let mut out = Map::new();
        for name in ["apiVersion", "kind"] {
            out.insert(name.into(), object.get(name).cloned().unwrap_or_default());
        }
        let mut metadata = object.get("metadata").cloned().unwrap_or_else(|| Value::Object(Map::new()));
        remove(&mut metadata, "resourceVersion");
        out.insert("metadata".into(), metadata);
        for (name, value) in object.as_object().into_iter().flatten() {
            if !out.contains_key(name) {
                out.insert(name.clone(), value.clone());
            }
        }
        Bytes::from(Value::Object(out).to_string())
    }

    /// Whether the stored form differs from the served one; if not, stored bytes may be served as they are.
    #[must_use]
    pub fn converts(&self) -> bool {
        !self.conversion.is_identity()
    }

    /// A stored object in this version.
    #[must_use]
    pub fn from_storage(&self, mut object: Value) -> Value {
        self.conversion.serve(&mut object, &self.api_version(), &self.kind);
        object
    }

    /// For custom resources, the version's OpenAPI schema as its definition gives it.
    #[must_use]
    pub fn custom_schema(&self) -> Option<&Value> {
        match &self.behaviour {
            Behaviour::Builtin(_) => None,
            Behaviour::Custom(custom) => custom.published_schema(),
        }
    }

    /// For custom resources, the paths of the scale subresource.
    #[must_use]
    pub fn custom_scale(&self) -> Option<&Value> {
        match &self.behaviour {
            Behaviour::Builtin(_) => None,
            Behaviour::Custom(custom) => custom.scale(),
        }
    }

    pub(crate) fn has_status(&self) -> bool {
        match &self.behaviour {
            Behaviour::Builtin(strategy) => strategy.status,
            Behaviour::Custom(custom) => custom.has_status(),
        }
    }

    /// The parts of a status that are always there.
    fn fill_status(&self, object: &mut Value) {
        let Some(schema) = self.schema.root().field("status") else { return };
        if let Some(default) = schema.default() {
            crate::field::fill(object, "status", default.clone());
            crate::schema::fill_defaults(&mut object["status"], schema);
        }
    }

    fn counts_generation(&self) -> bool {
        match &self.behaviour {
            Behaviour::Builtin(strategy) => strategy.generation,
            Behaviour::Custom(_) => true,
        }
    }

    fn name_rule(&self) -> NameRule {
        match &self.behaviour {
            Behaviour::Builtin(strategy) => strategy.name,
            Behaviour::Custom(_) => NameRule::Subdomain,
        }
    }

    fn validate_content(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        match &self.behaviour {
            Behaviour::Builtin(strategy) => (strategy.validate)(object, errors),
            Behaviour::Custom(custom) => custom.validate(object, old, errors),
        }
    }

    fn count_generation(&self, new: &mut Value, old: &Value) {
        let before = int(old, &["metadata", "generation"]).unwrap_or(0);
        let counted = |name: &&String| {
            let uncounted = matches!(name.as_str(), "metadata" | "apiVersion" | "kind");
            !uncounted && (name.as_str() != "status" || !self.has_status())
        };
        let names = |v: &Value| v.as_object().map(|o| o.keys().filter(counted).cloned().collect::<Vec<_>>());
        let mut all = names(new).unwrap_or_default();
        all.extend(names(old).unwrap_or_default());
        let annotated = &*self.plural == "deployments"
            && new["metadata"].get("annotations") != old["metadata"].get("annotations");
        let changed = annotated || all.iter().any(|name| new.get(name) != old.get(name));
        if before + i64::from(changed) > 0 {
            new["metadata"]["generation"] = (before + i64::from(changed)).into();
        }
    }
}
