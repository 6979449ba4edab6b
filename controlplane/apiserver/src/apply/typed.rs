//! Values under a schema: what they own, what changed, merging and removing. Lists are atomic, sets, or maps by key
//! fields, as the schema says; where no schema is known, objects merge and lists are atomic.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use skep_registry::SchemaRef;
use skep_registry::schema::ListType;

use crate::apply::fields::{FieldSet, Step};

type Place<'a> = Option<SchemaRef<'a>>;

/// Metadata that no manager owns.
const SERVERS: [&str; 12] = [
    "name",
    "namespace",
    "generateName",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "clusterName",
];

/// What kind of container a value is in its place.
enum Shape<'v> {
    Leaf,
    Object(&'v Map<String, Value>),
    Set(&'v [Value]),
    Keyed(&'v [Value], Vec<String>),
}

fn shape<'v>(value: &'v Value, place: Place<'_>) -> Shape<'v> {
    let atomic = place.is_some_and(|p| p.is_atomic());
    match value {
        Value::Object(map) if !atomic => Shape::Object(map),
        Value::Array(items) => match place.map(|p| p.list_type()).unwrap_or_default() {
            ListType::Atomic => Shape::Leaf,
            ListType::Set => Shape::Set(items),
            ListType::Map(keys) => Shape::Keyed(items, keys.iter().map(|k| k.to_string()).collect()),
        },
        _ => Shape::Leaf,
    }
}

fn field<'a>(place: Place<'a>, name: &str) -> Place<'a> {
    place.and_then(|p| p.field(name))
}

fn items<'a>(place: Place<'a>) -> Place<'a> {
    place.and_then(|p| p.items())
}

/// The step to a keyed item; key fields it leaves out have their defaults.
fn key_of(item: &Value, keys: &[String], place: Place<'_>) -> Step {
    let of = |key: &String| {
        let given = item.get(key).cloned();
        let value = given.or_else(|| field(place, key).and_then(|p| p.default().cloned()));
        value.map(|value| (key.clone(), value))
    };
    let found: BTreeMap<String, Value> = keys.iter().filter_map(of).collect();
    Step::Key(json!(found).to_string())
}

fn set_step(item: &Value) -> Step {
    Step::Value(item.to_string())
}

/// Every field a configuration speaks of, without those that are the server's.
pub fn owned(config: &Value, schema: SchemaRef<'_>) -> FieldSet {
    let mut set = FieldSet::default();
    collect(config, Some(schema), &mut set);
    without_servers(set)
}

fn without_servers(mut set: FieldSet) -> FieldSet {
    set.cut(&Step::Field("apiVersion".into()));
    set.cut(&Step::Field("kind".into()));
    let metadata = Step::Field("metadata".into());
    if let Some(mut own) = set.get(&metadata).cloned() {
        for name in SERVERS {
            own.cut(&Step::Field(name.into()));
        }
        set.cut(&metadata);
        if own.children().next().is_some() {
            *set.below(metadata) = own;
        }
    }
    set
}

fn collect(value: &Value, place: Place<'_>, set: &mut FieldSet) {
    match shape(value, place) {
        Shape::Object(map) if !map.is_empty() => {
            for (name, value) in map.iter().filter(|(_, v)| !v.is_null()) {
                collect(value, field(place, name), set.below(Step::Field(name.clone())));
            }
        }
        Shape::Set(list) if !list.is_empty() => list.iter().for_each(|item| set.below(set_step(item)).mark()),
        Shape::Keyed(list, keys) if !list.is_empty() => {
            for item in list {
                let below = set.below(key_of(item, &keys, items(place)));
                below.mark();
                collect(item, items(place), below);
            }
        }
        _ => set.mark(),
    }
}

/// Fields of `new` that `old` has not, or has with another value.
pub fn changed(old: &Value, new: &Value, schema: SchemaRef<'_>) -> FieldSet {
    let mut set = FieldSet::default();
    differ(Some(old), new, Some(schema), &mut set);
    without_servers(set)
}

fn differ(old: Option<&Value>, new: &Value, place: Place<'_>, set: &mut FieldSet) {
    if old == Some(new) {
        return;
    }
    let child = |set: &mut FieldSet, step: Step, old: Option<&Value>, new: &Value, place: Place<'_>| {
        let mut below = FieldSet::default();
        differ(old, new, place, &mut below);
        if !below.is_empty() {
            *set.below(step) = below;
        }
    };
    match shape(new, place) {
        Shape::Object(map) if !map.is_empty() => {
            if old.is_none() {
                set.mark();
            }
            for (name, value) in map.iter().filter(|(_, v)| !v.is_null()) {
                let before = old.and_then(|o| o.get(name)).filter(|v| !v.is_null());
                child(set, Step::Field(name.clone()), before, value, field(place, name));
            }
        }
        Shape::Set(list) if !list.is_empty() => {
            let before = old.and_then(Value::as_array);
            for item in list.iter().filter(|i| !before.is_some_and(|b| b.contains(i))) {
                set.below(set_step(item)).mark();
            }
        }
        Shape::Keyed(list, keys) if !list.is_empty() => {
            let before: Vec<&Value> = old.and_then(Value::as_array).into_iter().flatten().collect();
            for item in list {
                let key = key_of(item, &keys, items(place));
                let same = before.iter().find(|b| key_of(b, &keys, items(place)) == key);
                child(set, key, same.copied(), item, items(place));
            }
        }
        _ => set.mark(),
    }
}

/// The live object with the configuration laid over it.
pub fn merge(live: &Value, config: &Value, schema: SchemaRef<'_>) -> Value {
    overlay(live, config, Some(schema))
}

fn overlay(live: &Value, config: &Value, place: Place<'_>) -> Value {
    match (shape(config, place), live) {
        (Shape::Object(map), Value::Object(own)) => {
            let mut out = own.clone();
            for (name, value) in map.iter().filter(|(_, v)| !v.is_null()) {
                let merged = match own.get(name) {
                    Some(present) => overlay(present, value, field(place, name)),
                    None => value.clone(),
                };
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        (Shape::Set(list), Value::Array(own)) => {
            Value::Array(interleave(own, list, set_step, |_present, item| item.clone()))
        }
        (Shape::Keyed(list, keys), Value::Array(own)) => {
            let key = |item: &Value| key_of(item, &keys, items(place));
            Value::Array(interleave(own, list, key, |present, item| overlay(present, item, items(place))))
        }
        _ => config.clone(),
    }
}

/// One list of the live items and the configured ones: these in their own order, the others where they stood.
fn interleave(
    live: &[Value],
    config: &[Value],
    key: impl Fn(&Value) -> Step,
    both: impl Fn(&Value, &Value) -> Value,
) -> Vec<Value> {
    let present: Vec<(Step, &Value)> = live.iter().map(|item| (key(item), item)).collect();
    let wanted: Vec<Step> = config.iter().map(&key).collect();
    let mut out = Vec::with_capacity(live.len() + config.len());
    let mut next = 0;
    for (i, item) in config.iter().enumerate() {
        while let Some((step, own)) = present.get(next) {
            match wanted.iter().position(|w| w == step) {
                None => out.push((*own).clone()),
                // It has been placed by the configuration before.
                Some(at) if at < i => {}
                Some(_) => break,
            }
            next += 1;
        }
        let own = present.iter().find(|(step, _)| *step == wanted[i]);
        out.push(own.map_or_else(|| item.clone(), |(_, own)| both(own, item)));
    }
    let rest = present.iter().skip(next).filter(|(step, _)| !wanted.contains(step));
    out.extend(rest.map(|(_, own)| (*own).clone()));
    out
}

/// Removes the members of a set from a value.
pub fn remove(value: &mut Value, set: &FieldSet, schema: SchemaRef<'_>) {
    prune(value, set, Some(schema));
}

fn prune(value: &mut Value, set: &FieldSet, place: Place<'_>) {
    match value {
        Value::Object(map) => {
            for (step, below) in set.children() {
                let Step::Field(name) = step else { continue };
                let leaf = below.is_member() && below.children().next().is_none();
                if leaf {
                    map.shift_remove(name);
                } else if let Some(inner) = map.get_mut(name) {
                    prune(inner, below, field(place, name));
                }
            }
        }
        Value::Array(list) => prune_list(list, set, place),
        _ => {}
    }
}

fn prune_list(list: &mut Vec<Value>, set: &FieldSet, place: Place<'_>) {
    match place.map(|p| p.list_type()).unwrap_or_default() {
        ListType::Atomic => {}
        ListType::Set => list.retain(|item| !set.get(&set_step(item)).is_some_and(FieldSet::is_member)),
        ListType::Map(keys) => {
            let keys: Vec<String> = keys.iter().map(|k| k.to_string()).collect();
            let gone = |item: &Value| set.get(&key_of(item, &keys, items(place)));
            list.retain(|item| !gone(item).is_some_and(FieldSet::is_member));
            for item in list.iter_mut() {
                if let Some(below) = gone(item).cloned() {
                    prune(item, &below, items(place));
                }
            }
        }
    }
}

/// An item that the configuration names twice, or that lacks its key.
pub fn broken_list(config: &Value, schema: SchemaRef<'_>) -> Option<String> {
    repeated(config, Some(schema), "")
}

fn repeated(value: &Value, place: Place<'_>, at: &str) -> Option<String> {
    let twice = |steps: &[Step]| steps.iter().enumerate().any(|(i, s)| steps[..i].contains(s));
    match shape(value, place) {
        Shape::Object(map) => {
            map.iter().find_map(|(k, v)| repeated(v, field(place, k), &format!("{at}.{k}")))
        }
        Shape::Set(list) => {
            let steps: Vec<Step> = list.iter().map(set_step).collect();
            twice(&steps).then(|| format!("{at}: the set holds an item twice"))
        }
        Shape::Keyed(list, keys) => {
            let known = |item: &Value, key: &String| {
                item.get(key).is_some() || field(items(place), key).is_some_and(|p| p.default().is_some())
            };
            let unnamed = list.iter().any(|item| !keys.iter().any(|key| known(item, key)));
            let steps: Vec<Step> = list.iter().map(|item| key_of(item, &keys, items(place))).collect();
            if unnamed {
                return Some(format!("{at}: an item lacks its key {}", keys.join(", ")));
            }
            if twice(&steps) {
                return Some(format!("{at}: the list holds a key twice"));
            }
            list.iter().find_map(|item| repeated(item, items(place), at))
        }
        Shape::Leaf => None,
    }
}
