//! Reads the embedded fact table (`tables/schema.txt`) into the arena of built-in kinds.
//!
//! A line `=NAME marks` opens a definition; each further line is `field[!] TYPE attributes`, `!` for required.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::{Field, GroupVersionKind, Kind, ListType, Node, Object, ObjectId, Types, omit};

static FACTS: &str = include_str!("../../tables/schema.txt");
static BUILTIN: LazyLock<Arc<Types>> = LazyLock::new(|| Arc::new(parse(FACTS)));

/// Full name of the metadata every object carries.
pub(crate) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The arena of built-in kinds.
pub(crate) fn types() -> &'static Arc<Types> {
    &BUILTIN
}

/// The definition of a kind, also of those that no resource has.
pub(crate) fn object_of(gvk: &GroupVersionKind) -> Option<&'static Object> {
    let by_kind = BUILTIN.objects().find(|o| o.gvk.as_ref() == Some(gvk));
    by_kind.or_else(|| {
        // Options belong to every group and version.
        let known = matches!(&*gvk.kind, "DeleteOptions" | "Status" | "WatchEvent");
        let name = known.then(|| format!("io.k8s.apimachinery.pkg.apis.meta.v1.{}", gvk.kind))?;
        Some(BUILTIN.object(BUILTIN.id(&name)?))
    })
}

/// Full definition name of a table name.
pub(crate) fn full_name(short: &str) -> String {
    if short.starts_with("io.") { short.to_owned() } else { format!("io.k8s.api.{short}") }
}

fn parse(facts: &str) -> Types {
    let mut types = Types::default();
    let mut names: HashMap<String, ObjectId> = HashMap::new();
    for line in facts.lines().filter_map(|l| l.strip_prefix('=')) {
        let object = parse_header(line);
        let name = object.name.to_string();
        names.insert(name, types.insert(object));
    }
    let mut current: Option<(ObjectId, Object)> = None;
    for line in facts.lines() {
        if let Some(header) = line.strip_prefix('=') {
            if let Some((id, object)) = current.take() {
                types.replace(id, object);
            }
            let object = parse_header(header);
            current = names.get(&*object.name).map(|id| (*id, object));
        } else if let Some((_, object)) = &mut current {
            object.push(parse_field(&object.name, line, &names));
        }
    }
    if let Some((id, object)) = current {
        types.replace(id, object);
    }
    types
}

fn parse_header(line: &str) -> Object {
    let mut words = line.split(' ');
    let mut object = Object { name: full_name(words.next().unwrap_or_default()).into(), ..Object::default() };
    for word in words {
        if word == "atomic" {
            object.atomic = true;
        } else if let Some(gvk) = word.strip_prefix("gvk=") {
            let mut parts = gvk.split('/');
            let mut next = || parts.next().unwrap_or_default();
            object.gvk = Some(GroupVersionKind::new(next(), next(), next()));
        }
    }
    object
}

fn parse_field(owner: &str, line: &str, names: &HashMap<String, ObjectId>) -> Field {
    let mut words = line.split(' ');
    let name = words.next().unwrap_or_default();
    let required = name.ends_with('!');
    let name = name.trim_end_matches('!');
    let mut node = Node::of(parse_kind(words.next().unwrap_or_default(), names));
    for word in words {
        parse_attribute(&mut node, word);
    }
    let omit_empty = !required && node.default.is_none() && omit::empty_means_absent(owner, name, &node.kind);
    Field { name: name.into(), required, omit_empty, drop_empty_container: !required, node }
}

fn parse_attribute(node: &mut Node, word: &str) {
    match word.split_once('=') {
        Some(("list", list)) => {
            node.list = Some(match list.split_once(':') {
                Some((_, keys)) => ListType::Map(keys.split(',').map(Into::into).collect()),
                None if list == "set" => ListType::Set,
                None => ListType::Atomic,
            });
        }
        Some(("patch", strategies)) => {
            node.patch.merge = strategies.split(',').any(|s| s == "merge");
            node.patch.retain_keys = strategies.split(',').any(|s| s == "retainKeys");
        }
        Some(("key", key)) => node.patch.merge_key = Some(key.into()),
        Some(("enum", values)) => node.enums = values.split('|').map(Value::from).collect(),
        Some(("default", json)) => node.default = serde_json::from_str(json).ok(),
        _ => node.atomic |= word == "atomic",
    }
}

fn parse_kind(word: &str, names: &HashMap<String, ObjectId>) -> Kind {
    if let Some(inner) = word.strip_prefix('[') {
        return Kind::Array(Box::new(Node::of(parse_kind(inner.trim_end_matches(']'), names))));
    }
    if let Some(inner) = word.strip_prefix('{').and_then(|w| w.strip_suffix('}')) {
        if let Some(items) = inner.strip_prefix('[') {
            let items = Node::of(parse_kind(items.trim_end_matches(']'), names));
            return Kind::Map(Box::new(Node::of(Kind::Array(Box::new(items)))));
        }
        return Kind::Map(Box::new(Node::of(parse_kind(inner, names))));
    }
    match word {
        "string" => Kind::String,
        "time" => Kind::Time,
        "microtime" => Kind::MicroTime,
        "int32" => Kind::Int32,
        "int64" => Kind::Int64,
        "double" => Kind::Double,
        "bool" => Kind::Bool,
        "byte" => Kind::Bytes,
        "quantity" => Kind::Quantity,
        "intorstring" => Kind::IntOrString,
        "raw" => Kind::Raw,
        _ => match names.get(&full_name(word)) {
            Some(id) => Kind::Object(*id),
            None => Kind::Any(word.strip_prefix("any:").unwrap_or_default().into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_list_keys_of_container_ports() {
        let types = types();
        let container = types.object(types.id("io.k8s.api.core.v1.Container").unwrap());
        let ports = &container.field("ports").unwrap().node;
        assert_eq!(ports.list, Some(ListType::Map(vec!["containerPort".into(), "protocol".into()])));
        assert_eq!(ports.patch.merge_key.as_deref(), Some("containerPort"));
        assert!(container.field("name").unwrap().required);
    }

    #[test]
    fn reads_nested_kinds() {
        let types = types();
        let extra = types.object(types.id("io.k8s.api.authentication.v1.UserInfo").unwrap());
        let Kind::Map(values) = &extra.field("extra").unwrap().node.kind else { panic!("not a map") };
        assert!(matches!(&values.kind, Kind::Array(items) if items.kind == Kind::String));
    }
}
