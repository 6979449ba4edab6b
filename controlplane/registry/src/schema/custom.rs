//! The arena of a custom resource version, from the OpenAPI schema that its definition carries.

use std::sync::Arc;

use serde_json::Value;

use super::{Field, GroupVersionKind, Kind, ListType, Node, Object, Schema, Types};
use crate::field::{at, flag, items, members, text};

/// The schema of one version; without one, anything is allowed.
pub(crate) fn schema(definition: Option<&Value>, gvk: GroupVersionKind) -> Schema {
    let mut types = Types::default();
    let root = match definition {
        Some(definition) => node(definition, &mut types),
        None => Node { preserve_unknown: true, ..Node::of(Kind::Raw) },
    };
    if let Kind::Object(id) = root.kind {
        types.objects[id.0].gvk = Some(gvk);
    }
    Schema::new(Arc::new(types), root)
}

fn node(definition: &Value, types: &mut Types) -> Node {
    let list = match text(definition, &["x-kubernetes-list-type"]) {
        "set" => Some(ListType::Set),
        "atomic" => Some(ListType::Atomic),
        "map" => {
            let keys = items(definition, &["x-kubernetes-list-map-keys"]).iter().filter_map(Value::as_str);
            Some(ListType::Map(keys.map(Into::into).collect()))
        }
        _ => None,
    };
    Node {
        default: definition.get("default").cloned(),
        list,
        atomic: text(definition, &["x-kubernetes-map-type"]) == "atomic",
        enums: items(definition, &["enum"]).to_vec(),
        nullable: flag(definition, &["nullable"]),
        preserve_unknown: flag(definition, &["x-kubernetes-preserve-unknown-fields"]),
        embedded: flag(definition, &["x-kubernetes-embedded-resource"]),
        ..Node::of(kind(definition, types))
    }
}

fn kind(definition: &Value, types: &mut Types) -> Kind {
    if flag(definition, &["x-kubernetes-int-or-string"]) {
        return Kind::IntOrString;
    }
    match (text(definition, &["type"]), text(definition, &["format"])) {
        ("string", "byte") => Kind::Bytes,
        ("string", _) => Kind::String,
        ("integer", "int32") => Kind::Int32,
        ("integer", _) => Kind::Int64,
        ("number", _) => Kind::Double,
        ("boolean", _) => Kind::Bool,
        ("array", _) => match at(definition, &["items"]) {
            Some(inner) => Kind::Array(Box::new(node(inner, types))),
            None => Kind::Any("".into()),
        },
        ("object", _) => object(definition, types),
        _ => Kind::Any("".into()),
    }
}

fn object(definition: &Value, types: &mut Types) -> Kind {
    if let Some(values) = at(definition, &["additionalProperties"]).filter(|values| values.is_object()) {
        return Kind::Map(Box::new(node(values, types)));
    }
    let mut object = Object::default();
    for (name, field) in members(definition, &["properties"]) {
        let required = items(definition, &["required"]).iter().any(|wanted| wanted == name);
        let node = node(field, types);
        object.push(Field {
            name: name.into(),
            required,
            omit_empty: false,
            drop_empty_container: false,
            node,
        });
    }
    if object.fields().is_empty() { Kind::Raw } else { Kind::Object(types.insert(object)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_types_lists_and_defaults() {
        let definition = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "rules": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}}}},
            "port": {"x-kubernetes-int-or-string": true, "default": 80},
        }}}});
        let schema = schema(Some(&definition), GroupVersionKind::new("example.com", "v1", "Foo"));
        let spec = schema.root().field("spec").unwrap();
        assert_eq!(spec.field("rules").unwrap().list_type(), ListType::Map(vec!["k".into()]));
        assert_eq!(spec.field("port").unwrap().default(), Some(&json!(80)));
        assert!(matches!(spec.field("port").unwrap().kind(), Kind::IntOrString));
    }
}
