//! What a kind looks like: field types, list and map semantics, enums, defaults.
//!
//! One arena ([`Types`]) holds the built-in kinds, read once from the embedded fact table; each custom resource
//! version has a small arena of its own. A [`Schema`] is an arena plus a root; readers walk it with [`SchemaRef`].
//! The vocabulary is that of OpenAPI with the `x-kubernetes-*` extensions.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

pub(crate) mod builtin;
pub(crate) mod custom;
mod omit;

/// Index of an object definition inside its [`Types`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectId(pub(crate) usize);

/// What a value is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Text.
    String,
    /// RFC 3339 time with whole seconds.
    Time,
    /// RFC 3339 time with microseconds.
    MicroTime,
    /// Whole number of 32 bits.
    Int32,
    /// Whole number of 64 bits.
    Int64,
    /// Floating point number.
    Double,
    /// Truth value.
    Bool,
    /// Base64 text.
    Bytes,
    /// Resource quantity: text or number.
    Quantity,
    /// Number or text.
    IntOrString,
    /// Any JSON object, kept as it is.
    Raw,
    /// Any JSON; the name tells unions that OpenAPI cannot say (empty for plain JSON).
    Any(Box<str>),
    /// List of one kind.
    Array(Box<Node>),
    /// Object whose keys are free and whose values are of one kind.
    Map(Box<Node>),
    /// Object with named fields.
    Object(ObjectId),
}

/// How a list merges.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListType {
    /// Replaced as a whole.
    #[default]
    Atomic,
    /// A set of scalars.
    Set,
    /// Items told apart by these key fields.
    Map(Vec<Box<str>>),
}

/// Strategic-merge facts of a field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PatchStrategy {
    /// List items merge instead of being replaced.
    pub merge: bool,
    /// Fields that the patch does not name are cleared (`retainKeys`).
    pub retain_keys: bool,
    /// The field that identifies a list item.
    pub merge_key: Option<Box<str>>,
}

/// A value's schema in its place: its kind and everything said about it there.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Value when absent.
    pub default: Option<Value>,
    /// How a list merges; meaningless for other kinds. `None` when nothing is said, which means atomic.
    pub list: Option<ListType>,
    /// The object or map is replaced as a whole.
    pub atomic: bool,
    /// Strategic-merge facts.
    pub patch: PatchStrategy,
    /// Allowed values, empty when free.
    pub enums: Vec<Value>,
    /// `null` is a value of its own (custom resources).
    pub nullable: bool,
    /// Unknown fields are kept (custom resources).
    pub preserve_unknown: bool,
    /// The value is a Kubernetes object of its own (custom resources).
    pub embedded: bool,
}

impl Node {
    /// A node of a kind with nothing else said.
    #[must_use]
    pub fn of(kind: Kind) -> Self {
        Self {
            kind,
            default: None,
            list: None,
            atomic: false,
            patch: PatchStrategy::default(),
            enums: Vec::new(),
            nullable: false,
            preserve_unknown: false,
            embedded: false,
        }
    }
}

/// One named field of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Name in JSON.
    pub name: Box<str>,
    /// Must be present.
    pub required: bool,
    /// An empty value (zero, false, empty text) means absent and is not kept.
    pub omit_empty: bool,
    /// An empty list or map means absent and is not kept.
    pub drop_empty_container: bool,
    /// The field's schema.
    pub node: Node,
}

/// Group, version and kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupVersionKind {
    /// API group, empty for core.
    pub group: Box<str>,
    /// Version.
    pub version: Box<str>,
    /// Kind.
    pub kind: Box<str>,
}

impl GroupVersionKind {
    /// Builds one from its parts.
    #[must_use]
    pub fn new(group: &str, version: &str, kind: &str) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// `group/version`, or `version` for core.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// An object definition.
#[derive(Debug, Clone, Default)]
pub struct Object {
    /// Full definition name, empty for anonymous ones.
    pub name: Box<str>,
    /// Its kind, when it is an API object.
    pub gvk: Option<GroupVersionKind>,
    /// Replaced as a whole wherever it stands.
    pub atomic: bool,
    fields: Vec<Field>,
    index: HashMap<Box<str>, usize>,
}

impl Object {
    /// All fields in declaration order.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.index.get(name).map(|i| &self.fields[*i])
    }

    pub(crate) fn push(&mut self, field: Field) {
        self.index.insert(field.name.clone(), self.fields.len());
        self.fields.push(field);
    }

    /// The Go type's bare name, as decoding errors say it.
    #[must_use]
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }
}

/// An arena of object definitions.
#[derive(Debug, Default)]
pub struct Types {
    objects: Vec<Object>,
    names: HashMap<Box<str>, ObjectId>,
}

impl Types {
    /// The definition of that full name.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<ObjectId> {
        self.names.get(name).copied()
    }

    /// The definition of that id.
    #[must_use]
    pub fn object(&self, id: ObjectId) -> &Object {
        &self.objects[id.0]
    }

    /// All definitions.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter()
    }

    pub(crate) fn insert(&mut self, object: Object) -> ObjectId {
        let id = ObjectId(self.objects.len());
        if !object.name.is_empty() {
            self.names.insert(object.name.clone(), id);
        }
        self.objects.push(object);
        id
    }

    pub(crate) fn replace(&mut self, id: ObjectId, object: Object) {
        self.objects[id.0] = object;
    }
}

/// A kind's schema: an arena and the root inside it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Schema {
    types: Arc<Types>,
    root: Arc<Node>,
}

impl Schema {
    pub(crate) fn new(types: Arc<Types>, root: Node) -> Self {
        Self { types, root: Arc::new(root) }
    }

    /// Where a walk begins.
    #[must_use]
    pub fn root(&self) -> SchemaRef<'_> {
        SchemaRef { types: &self.types, node: &self.root, field: None }
    }

    /// The arena.
    #[must_use]
    pub fn types(&self) -> &Arc<Types> {
        &self.types
    }
}

/// A place in a schema.
#[derive(Debug, Clone, Copy)]
pub struct SchemaRef<'a> {
    types: &'a Types,
    node: &'a Node,
    field: Option<&'a Field>,
}

impl<'a> SchemaRef<'a> {
    /// The node itself.
    #[must_use]
    pub fn node(&self) -> &'a Node {
        self.node
    }

    /// What the value is made of.
    #[must_use]
    pub fn kind(&self) -> &'a Kind {
        &self.node.kind
    }

    /// The definition, when this is an object with named fields.
    #[must_use]
    pub fn object(&self) -> Option<&'a Object> {
        match self.node.kind {
            Kind::Object(id) => Some(self.types.object(id)),
            _ => None,
        }
    }

    /// The member of that name: a named field, or the value schema of a map.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<SchemaRef<'a>> {
        match &self.node.kind {
            Kind::Object(id) => {
                let field = self.types.object(*id).field(name)?;
                Some(SchemaRef { types: self.types, node: &field.node, field: Some(field) })
            }
            Kind::Map(values) => Some(SchemaRef { types: self.types, node: values, field: None }),
            _ => None,
        }
    }

    /// The schema of a list's items.
    #[must_use]
    pub fn items(&self) -> Option<SchemaRef<'a>> {
        match &self.node.kind {
            Kind::Array(items) => Some(SchemaRef { types: self.types, node: items, field: None }),
            _ => None,
        }
    }

    /// The schema of a map's values.
    #[must_use]
    pub fn values(&self) -> Option<SchemaRef<'a>> {
        match &self.node.kind {
            Kind::Map(values) => Some(SchemaRef { types: self.types, node: values, field: None }),
            _ => None,
        }
    }

    /// How the list merges under server-side apply.
    #[must_use]
    pub fn list_type(&self) -> ListType {
        self.node.list.clone().unwrap_or_default()
    }

    /// Whether the object or map is owned as a whole under server-side apply.
    #[must_use]
    pub fn is_atomic(&self) -> bool {
        self.node.atomic
            || self.object().is_some_and(|o| o.atomic)
            || matches!(self.node.kind, Kind::Raw) && !self.node.preserve_unknown
    }

    /// Strategic-merge facts.
    #[must_use]
    pub fn patch(&self) -> &'a PatchStrategy {
        &self.node.patch
    }

    /// The default when absent.
    #[must_use]
    pub fn default(&self) -> Option<&'a Value> {
        self.node.default.as_ref()
    }

    /// Allowed values, empty when free.
    #[must_use]
    pub fn enums(&self) -> &'a [Value] {
        &self.node.enums
    }

    /// Whether an empty value means absent.
    #[must_use]
    pub fn omit_empty(&self) -> bool {
        self.field.is_some_and(|f| f.omit_empty)
    }

    /// Whether an empty list or map in this place means absent (optional fields of built-in kinds).
    #[must_use]
    pub fn drops_empty_container(&self) -> bool {
        let container = matches!(self.node.kind, Kind::Array(_) | Kind::Map(_));
        container && self.field.is_some_and(|f| f.drop_empty_container)
    }

    /// Whether unknown members are kept.
    #[must_use]
    pub fn preserves_unknown(&self) -> bool {
        self.node.preserve_unknown || matches!(self.node.kind, Kind::Raw | Kind::Any(_))
    }
}

/// Sets the defaults that the schema names, in every object that is there. Idempotent.
pub(crate) fn fill_defaults(value: &mut Value, schema: SchemaRef<'_>) {
    match (value, schema.kind()) {
        (Value::Object(members), Kind::Object(id)) => {
            for field in schema.types.object(*id).fields() {
                let inner = SchemaRef { types: schema.types, node: &field.node, field: Some(field) };
                match members.get_mut(&*field.name) {
                    Some(member) => fill_defaults(member, inner),
                    None => fill_absent(members, field, inner),
                }
            }
        }
        (Value::Array(items), Kind::Array(_)) => {
            if let Some(inner) = schema.items() {
                items.iter_mut().for_each(|item| fill_defaults(item, inner));
            }
        }
        (Value::Object(members), Kind::Map(_)) => {
            if let Some(inner) =
                schema.values().filter(|v| matches!(v.kind(), Kind::Object(_) | Kind::Array(_)))
            {
                members.values_mut().for_each(|member| fill_defaults(member, inner));
            }
        }
        _ => {}
    }
}

fn fill_absent(members: &mut serde_json::Map<String, Value>, field: &Field, schema: SchemaRef<'_>) {
    let Some(default) = &field.node.default else { return };
    if matches!(schema.kind(), Kind::Time | Kind::MicroTime | Kind::Quantity) {
        return;
    }
    let mut value = default.clone();
    fill_defaults(&mut value, schema);
    members.insert(field.name.to_string(), value);
}
