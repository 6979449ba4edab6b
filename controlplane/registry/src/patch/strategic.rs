//! Strategic merge patch: maps merge, lists replace or merge by key as the schema says, and `$` directives.
//!
//! | directive | means |
//! |---|---|
//! | `$patch: replace` in a map | the map is replaced by the rest of the patch |
//! | `$patch: delete` in a map or list item | it is removed |
//! | `$patch: replace` as a list item | the list is replaced by the patch's other items |
//! | `$retainKeys: [..]` | members of the original that are not named are removed |
//! | `$deleteFromPrimitiveList/NAME` | these values leave the list NAME |
//! | `$setElementOrder/NAME` | the order of the merged list NAME |

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::{Kind, Schema, SchemaRef};

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Merges a patch into an object of the schema.
///
/// # Errors
/// See [`PatchError`].
pub fn strategic_merge(schema: &Schema, original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(PatchError::Malformed("a strategic merge patch must be an object".into()));
    };
    merge_map(Some(schema.root()), original.clone(), patch).map(Value::Object)
}

type Members = Map<String, Value>;

fn malformed<T>(text: String) -> Result<T, PatchError> {
    Err(PatchError::Malformed(text))
}

fn merge_map(
    schema: Option<SchemaRef<'_>>,
    mut original: Members,
    patch: &Members,
) -> Result<Members, PatchError> {
    match patch.get(PATCH) {
        None => {}
        Some(Value::String(s)) if s == "replace" => {
            return Ok(patch
                .iter()
                .filter(|(k, _)| *k != PATCH)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect());
        }
        Some(Value::String(s)) if s == "delete" => return Ok(Members::new()),
        Some(Value::String(s)) if s == "merge" => {}
        Some(other) => return Err(PatchError::Directive(other.as_str().unwrap_or_default().to_owned())),
    }
    if let Some(keep) = patch.get(RETAIN) {
        let Value::Array(keep) = keep else { return malformed(format!("{RETAIN} must be a list: {keep}")) };
        original.retain(|name, _| keep.iter().any(|k| k == name));
    }
    let before: Vec<(&str, Vec<Value>)> = patch
        .keys()
        .filter_map(|key| key.strip_prefix(ORDER))
        .map(|name| (name, original.get(name).and_then(Value::as_array).cloned().unwrap_or_default()))
        .collect();
    for (key, value) in patch {
        if key == PATCH || key == RETAIN {
            continue;
        }
        if let Some(name) = key.strip_prefix(DELETE_FROM) {
            delete_primitives(&mut original, name, value)?;
        } else if !key.starts_with(ORDER) {
            merge_member(schema, &mut original, key, value)?;
        }
    }
    for (name, list) in before {
        reorder(schema, &mut original, name, patch, &list)?;
    }
    Ok(original)
}

fn merge_member(
    schema: Option<SchemaRef<'_>>,
    original: &mut Members,
    key: &str,
    value: &Value,
) -> Result<(), PatchError> {
    let inner = schema.and_then(|s| s.field(key));
    match value {
        Value::Null => {
            original.shift_remove(key);
        }
        Value::Object(change) => {
            let before = match original.get_mut(key).map(Value::take) {
                Some(Value::Object(before)) => before,
                _ => Members::new(),
            };
            let deleted = change.get(PATCH).is_some_and(|d| d == "delete");
            let merged = merge_map(inner, before, change)?;
            if deleted {
                original.shift_remove(key);
            } else {
                original.insert(key.to_owned(), Value::Object(merged));
            }
        }
        Value::Array(change) => {
            let before = match original.get_mut(key).map(Value::take) {
                Some(Value::Array(before)) => before,
                _ => Vec::new(),
            };
            original.insert(key.to_owned(), Value::Array(merge_list(inner, before, change)?));
        }
        scalar => {
            original.insert(key.to_owned(), scalar.clone());
        }
    }
    Ok(())
}

fn merge_list(
    schema: Option<SchemaRef<'_>>,
    original: Vec<Value>,
    patch: &[Value],
) -> Result<Vec<Value>, PatchError> {
    let strategy = schema.map(|s| s.patch());
    if !strategy.is_some_and(|s| s.merge) {
        return Ok(patch.iter().filter(|v| !is_directive(v, "replace")).cloned().collect());
    }
    if patch.iter().any(|v| is_directive(v, "replace")) {
        return Ok(patch.iter().filter(|v| !is_directive(v, "replace")).cloned().collect());
    }
    let items = schema.and_then(|s| s.items());
    match strategy.and_then(|s| s.merge_key.as_deref()) {
        Some(key) if items.is_some_and(|i| matches!(i.kind(), Kind::Object(_))) => {
            let keys = identity(schema, key);
            let before = original.clone();
            let merged = merge_items(items, original, patch, &keys)?;
            Ok(ordered(merged, patch, &before, |a, b| same_item(items, a, b, &keys)))
        }
        _ => {
            if let Some(wrong) = patch.iter().find(|v| v.is_object()) {
                return malformed(format!("a list of plain values cannot take {wrong}"));
            }
            let merged = merge_scalars(original.clone(), patch);
            Ok(ordered(merged, patch, &original, |a, b| a == b))
        }
    }
}

/// The fields that identify an item: the merge key first, then those of the list's map keys that tell apart items of
/// one merge key, such as the protocol of a port.
fn identity(schema: Option<SchemaRef<'_>>, key: &str) -> Vec<String> {
    let mut keys = vec![key.to_owned()];
    if let Some(crate::schema::ListType::Map(more)) = schema.map(|s| s.list_type())
        && more.iter().any(|k| &**k == key)
    {
        keys.extend(more.iter().filter(|k| &***k != key).map(|k| k.to_string()));
    }
    keys
}

fn is_directive(item: &Value, directive: &str) -> bool {
    item.get(PATCH).is_some_and(|d| d == directive)
}

fn merge_scalars(mut original: Vec<Value>, patch: &[Value]) -> Vec<Value> {
    for value in patch {
        if !original.contains(value) {
            original.push(value.clone());
        }
    }
    original
}

fn merge_items(
    schema: Option<SchemaRef<'_>>,
    mut original: Vec<Value>,
    patch: &[Value],
    keys: &[String],
) -> Result<Vec<Value>, PatchError> {
    for change in patch {
        let Value::Object(members) = change else {
            return malformed(format!("list items must be objects to merge by {}: {change}", keys[0]));
        };
        if members.get(&keys[0]).is_none_or(Value::is_null) {
            return Err(PatchError::MissingKey { item: change.to_string(), key: keys[0].clone() });
        }
        if is_directive(change, "delete") {
            original.retain(|item| !same_item(schema, item, change, keys));
            continue;
        }
        let at = original.iter().position(|item| same_item(schema, item, change, keys));
        let before = match at.map(|at| original[at].take()) {
            Some(Value::Object(before)) => before,
            _ => Members::new(),
        };
        let merged = Value::Object(merge_map(schema, before, members)?);
        match at {
            Some(at) => original[at] = merged,
            None => original.push(merged),
        }
    }
    Ok(original)
}

/// Whether a patch item means that list item: the merge key is equal, and so are the other keys that the patch names.
fn same_item(schema: Option<SchemaRef<'_>>, item: &Value, change: &Value, keys: &[String]) -> bool {
    keys.iter().enumerate().all(|(i, key)| {
        let default = || schema.and_then(|s| s.field(key)).and_then(|f| f.default().cloned());
        let of = |v: &Value| v.get(key).filter(|v| !v.is_null()).cloned().or_else(default);
        let (ours, theirs) = (of(item), of(change));
        ours == theirs || i > 0 && change.get(key).is_none() && ours.is_none()
    })
}

fn delete_primitives(original: &mut Members, name: &str, values: &Value) -> Result<(), PatchError> {
    let Value::Array(values) = values else {
        return malformed(format!("{DELETE_FROM}{name} must be a list"));
    };
    if let Some(Value::Array(list)) = original.get_mut(name) {
        list.retain(|item| !values.contains(item));
    }
    Ok(())
}

fn reorder(
    schema: Option<SchemaRef<'_>>,
    original: &mut Members,
    name: &str,
    patch: &Members,
    before: &[Value],
) -> Result<(), PatchError> {
    let Some(Value::Array(order)) = patch.get(&format!("{ORDER}{name}")) else {
        return malformed(format!("{ORDER}{name} must be a list"));
    };
    let field = schema.and_then(|s| s.field(name));
    let items = field.and_then(|f| f.items());
    let key = field.and_then(|f| f.patch().merge_key.as_deref());
    let keys = key.map(|key| identity(field, key)).unwrap_or_default();
    let same = |item: &Value, wanted: &Value| {
        if wanted.is_object() {
            !keys.is_empty() && same_item(items, item, wanted, &keys)
        } else {
            item == wanted
        }
    };
    if let Some(Value::Array(changes)) = patch.get(name) {
        let missing = changes
            .iter()
            .filter(|c| !is_directive(c, "delete") && !is_directive(c, "replace"))
            .any(|c| !order.iter().any(|wanted| same(c, wanted)));
        if missing {
            return malformed(format!("the list {name} holds items that {ORDER}{name} does not"));
        }
    }
    if let Some(Value::Array(list)) = original.get_mut(name) {
        *list = ordered(std::mem::take(list), order, before, same);
    }
    Ok(())
}

/// Orders a merged list: the items that the patch names in its order, the others in the original's. Where both orders
/// say nothing about two items, the patch's comes first.
fn ordered(
    list: Vec<Value>,
    order: &[Value],
    original: &[Value],
    same: impl Fn(&Value, &Value) -> bool,
) -> Vec<Value> {
    let rank = |item: &Value, list: &[Value]| list.iter().position(|other| same(item, other));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        list.into_iter().partition(|item| rank(item, order).is_some());
    named.sort_by_key(|item| rank(item, order));
    others.sort_by_key(|item| rank(item, original));
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    let mut out = Vec::new();
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (None, None) => return out,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(name)) => match (rank(other, original), rank(name, original)) {
                (Some(other), Some(name)) => other < name,
                _ => false,
            },
        };
        out.extend(if other_first { others.next() } else { named.next() });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Registry;

    fn apply(resource: (&str, &str), original: &Value, patch: &Value) -> Result<Value, PatchError> {
        let resource = Registry::builtin().lookup(resource.0, "v1", resource.1).unwrap();
        strategic_merge(resource.schema(), original, patch)
    }

    #[test]
    fn merges_containers_by_name_and_reorders() {
        let original =
            json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}});
        let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
            "containers": [{"name": "b", "image": "2"}]}});
        let merged = apply(("", "pods"), &original, &patch).unwrap();
        assert_eq!(
            merged,
            json!({"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "a", "image": "1"}]}})
        );
    }

    #[test]
    fn keeps_service_ports_that_differ_by_protocol() {
        let original = json!({"spec": {"ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]}});
        let patch = json!({"spec": {"ports": [{"port": 53, "protocol": "TCP", "targetPort": 5353}]}});
        let merged = apply(("", "services"), &original, &patch).unwrap();
        assert_eq!(merged["spec"]["ports"].as_array().unwrap().len(), 2);
        assert_eq!(merged["spec"]["ports"][1]["targetPort"], 5353);
        assert!(merged["spec"]["ports"][0].get("targetPort").is_none());
    }

    #[test]
    fn deletes_items_and_primitives() {
        let original = json!({"metadata": {"finalizers": ["a/x", "b/y"]},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/x"]},
            "spec": {"containers": [{"name": "a", "$patch": "delete"}]}});
        let merged = apply(("", "pods"), &original, &patch).unwrap();
        assert_eq!(
            merged,
            json!({"metadata": {"finalizers": ["b/y"]}, "spec": {"containers": [{"name": "b"}]}})
        );
    }

    #[test]
    fn retains_only_the_named_keys() {
        let original =
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
        let merged = apply(("apps", "deployments"), &original, &patch).unwrap();
        assert_eq!(merged, json!({"spec": {"strategy": {"type": "Recreate"}}}));
    }

    #[test]
    fn replaces_on_demand_and_refuses_unknown_directives() {
        let original = json!({"data": {"a": "1"}});
        let replaced =
            apply(("", "configmaps"), &original, &json!({"data": {"$patch": "replace", "b": "2"}}));
        assert_eq!(replaced.unwrap(), json!({"data": {"b": "2"}}));
        let refused = apply(("", "configmaps"), &original, &json!({"data": {"$patch": "x"}}));
        assert!(matches!(refused, Err(PatchError::Directive(_))));
    }

    #[test]
    fn refuses_items_without_their_key() {
        let refused = apply(("", "pods"), &json!({}), &json!({"spec": {"containers": [{"image": "x"}]}}));
        assert!(matches!(refused, Err(PatchError::MissingKey { .. })));
    }
}
