//! Definitions: the schema arena in OpenAPI's words.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value, json};

use super::{
    Dialect,
    description::{self, Description},
};
use crate::{
    resource::{Behaviour, Resource},
    schema::{Field, GroupVersionKind, Kind, ListType, Node, Object, ObjectId, Types, builtin},
};

const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
/// What operations answer and take besides the resources.
const ALWAYS: [&str; 2] =
    ["io.k8s.apimachinery.pkg.apis.meta.v1.Status", "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"];

/// The definition name of a resource's kind.
pub(super) fn name_of(resource: &Resource) -> String {
    match &resource.behaviour {
        Behaviour::Builtin(_) => {
            let id = match resource.schema().root().kind() {
                Kind::Object(id) => *id,
                _ => return resource.kind.to_string(),
            };
            resource.schema().types().object(id).name.to_string()
        }
        Behaviour::Custom(_) => custom_name(&resource.group, &resource.version, &resource.kind),
    }
}

/// The definition name of a resource's lists.
pub(super) fn list_name_of(resource: &Resource) -> String {
    match &resource.behaviour {
        Behaviour::Builtin(_) => format!("{}List", name_of(resource)),
        Behaviour::Custom(_) => custom_name(&resource.group, &resource.version, &resource.list_kind),
    }
}

/// The definition name of any built-in kind, such as a subresource's.
pub(super) fn builtin_name(gvk: &GroupVersionKind) -> Option<String> {
    builtin::types()
        .objects()
        .find(|object| object.gvk.as_ref() == Some(gvk))
        .map(|object| object.name.to_string())
}

/// `skep.dev` is read from the root: `dev.skep.v1alpha1.NodeEndpoints`.
fn custom_name(group: &str, version: &str, kind: &str) -> String {
    let reversed: Vec<_> = group.split('.').rev().collect();
    format!("{}.{version}.{kind}", reversed.join("."))
}

/// The definitions of the resources, their lists and subresources, and of all that these refer to.
pub(super) fn all(resources: &[&Arc<Resource>], dialect: Dialect) -> Map<String, Value> {
    let mut writer = Writer { dialect, types: builtin::types(), wanted: Vec::new(), done: BTreeMap::new() };
    ALWAYS.iter().for_each(|name| writer.want(name));
    writer.want(builtin::OBJECT_META);
    writer.want("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta");
    for resource in resources {
        match &resource.behaviour {
            Behaviour::Builtin(_) => {
                writer.want(&name_of(resource));
                writer.want(&list_name_of(resource));
            }
            Behaviour::Custom(custom) => writer.custom(resource, custom.published_schema()),
        }
        for name in resource.subresources.iter().filter_map(|sub| builtin_name(&sub.gvk)) {
            writer.want(&name);
        }
    }
    writer.finish()
}

struct Writer {
    dialect: Dialect,
    types: &'static Types,
    wanted: Vec<String>,
    done: BTreeMap<String, Value>,
}

impl Writer {
    fn want(&mut self, name: &str) {
        if !self.done.contains_key(name) && !self.wanted.iter().any(|wanted| wanted == name) {
            self.wanted.push(name.to_owned());
        }
    }

    fn finish(mut self) -> Map<String, Value> {
        let descriptions = description::of(self.wanted.iter().map(String::as_str));
        let none = Description::default();
        while let Some(name) = self.wanted.pop() {
            let definition = match scalar_definition(&name) {
                Some(definition) => Some(definition),
                None => self
                    .types
                    .id(&name)
                    .map(|id| self.object(self.types.object(id), descriptions.get(&name).unwrap_or(&none))),
            };
            self.done.insert(name, definition.unwrap_or_else(|| json!({"type": "object"})));
        }
        self.done.into_iter().collect()
    }

    fn object(&mut self, object: &Object, description: &Description) -> Value {
        let mut out = json!({"type": "object"});
        if !description.text.is_empty() {
            out["description"] = json!(description.text);
        }
        let properties: Map<_, _> = object
            .fields()
            .iter()
            .map(|field| (field.name.to_string(), self.field(field, description)))
            .collect();
        if !properties.is_empty() {
            out["properties"] = Value::Object(properties);
        }
        let required: Vec<_> =
            object.fields().iter().filter(|field| field.required).map(|f| &*f.name).collect();
        if !required.is_empty() {
            out["required"] = json!(required);
        }
        if object.atomic {
            out["x-kubernetes-map-type"] = json!("atomic");
        }
        if let Some(gvk) = &object.gvk {
            out["x-kubernetes-group-version-kind"] = json!([kind_value(gvk)]);
        }
        out
    }

    fn field(&mut self, field: &Field, description: &Description) -> Value {
        let mut out = self.node(&field.node);
        let text = description.fields.get(&*field.name).filter(|text| !text.is_empty());
        let default = field.node.default.as_ref();
        // A reference stands alone: what is said beside it goes around it.
        if self.dialect == Dialect::V3
            && out.get("$ref").is_some()
            && (text.is_some() || default.is_some() || !field.node.enums.is_empty())
        {
            out = json!({"allOf": [out]});
        }
        if let Some(text) = text {
            out["description"] = json!(text);
        }
        if let Some(default) = default {
            out["default"] = default.clone();
        }
        self.annotate(&mut out, &field.node);
        out
    }

    fn annotate(&self, out: &mut Value, node: &Node) {
        if !node.enums.is_empty() {
            out["enum"] = json!(node.enums);
        }
        match &node.list {
            Some(ListType::Atomic) => out["x-kubernetes-list-type"] = json!("atomic"),
            Some(ListType::Set) => out["x-kubernetes-list-type"] = json!("set"),
            Some(ListType::Map(keys)) => {
                out["x-kubernetes-list-type"] = json!("map");
                out["x-kubernetes-list-map-keys"] = json!(keys);
            }
            None => {}
        }
        if node.atomic {
            out["x-kubernetes-map-type"] = json!("atomic");
        }
        let strategies: Vec<_> = [(node.patch.merge, "merge"), (node.patch.retain_keys, "retainKeys")]
            .into_iter()
            .filter_map(|(set, name)| set.then_some(name))
            .collect();
        if !strategies.is_empty() {
            out["x-kubernetes-patch-strategy"] = json!(strategies.join(","));
        }
        if let Some(key) = &node.patch.merge_key {
            out["x-kubernetes-patch-merge-key"] = json!(key);
        }
    }

    fn node(&mut self, node: &Node) -> Value {
        match &node.kind {
            Kind::String => json!({"type": "string"}),
            Kind::Time => self.reference(TIME),
            Kind::MicroTime => self.reference(MICRO_TIME),
            Kind::Int32 => json!({"type": "integer", "format": "int32"}),
            Kind::Int64 => json!({"type": "integer", "format": "int64"}),
            Kind::Double => json!({"type": "number", "format": "double"}),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::Bytes => json!({"type": "string", "format": "byte"}),
            Kind::Quantity => self.reference(QUANTITY),
            Kind::IntOrString => self.reference(INT_OR_STRING),
            Kind::Raw => json!({"type": "object"}),
            Kind::Any(_) => json!({}),
            Kind::Array(items) => json!({"type": "array", "items": self.node(items)}),
            Kind::Map(values) => json!({"type": "object", "additionalProperties": self.node(values)}),
            Kind::Object(id) => self.object_reference(*id),
        }
    }

    fn object_reference(&mut self, id: ObjectId) -> Value {
        let name = self.types.object(id).name.to_string();
        self.reference(&name)
    }

    fn reference(&mut self, name: &str) -> Value {
        self.want(name);
        json!({"$ref": self.dialect.reference(name)})
    }

    fn custom(&mut self, resource: &Resource, schema: Option<&Value>) {
        let mut out = schema.cloned().unwrap_or_else(|| json!({"type": "object"}));
        out["x-kubernetes-group-version-kind"] = json!([kind_value(&resource.gvk())]);
        for (field, text) in [
            ("apiVersion", "The versioned schema of this representation of an object."),
            ("kind", "The REST resource that this object represents, in CamelCase."),
        ] {
            out["properties"][field] = json!({"type": "string", "description": text});
        }
        out["properties"]["metadata"] = self.reference(builtin::OBJECT_META);
        self.done.insert(name_of(resource), out);
        let mut list_kind = resource.gvk();
        list_kind.kind = resource.list_kind.clone();
        let list = json!({
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": self.reference("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"),
                "items": {"type": "array", "items": {"$ref": self.dialect.reference(&name_of(resource))}},
            },
            "x-kubernetes-group-version-kind": [kind_value(&list_kind)],
        });
        self.done.insert(list_name_of(resource), list);
    }
}

pub(super) fn kind_value(gvk: &GroupVersionKind) -> Value {
    json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind})
}

/// Types that are scalars in JSON but have names of their own.
fn scalar_definition(name: &str) -> Option<Value> {
    Some(match name {
        TIME | MICRO_TIME => json!({"type": "string", "format": "date-time"}),
        QUANTITY => json!({
            "description": "A fixed-point number such as 500m, 2Gi or 1e3.",
            "type": "string",
        }),
        INT_OR_STRING => json!({
            "description": "A number or a text, such as a port or a percentage.",
            "type": "string",
            "format": "int-or-string",
        }),
        _ => return None,
    })
}
