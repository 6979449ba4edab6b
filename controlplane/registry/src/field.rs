//! Short ways into JSON values: read along a path, write defaults.

use serde_json::{Map, Value};

const NOTHING: &[Value] = &[];

/// The value along the path, unless absent or null.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |v, name| v.get(name)).filter(|v| !v.is_null())
}

/// The text along the path, empty when absent.
pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// The whole number along the path.
pub(crate) fn int(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path).and_then(Value::as_i64)
}

/// The truth value along the path, false when absent.
pub(crate) fn flag(value: &Value, path: &[&str]) -> bool {
    at(value, path).and_then(Value::as_bool).unwrap_or(false)
}

/// The list along the path, empty when absent.
pub(crate) fn items<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).and_then(Value::as_array).map_or(NOTHING, Vec::as_slice)
}

/// The members along the path.
pub(crate) fn members<'a>(value: &'a Value, path: &[&str]) -> impl Iterator<Item = (&'a str, &'a Value)> {
    at(value, path).and_then(Value::as_object).into_iter().flatten().map(|(k, v)| (k.as_str(), v))
}

/// Whether something other than an empty value stands along the path.
pub(crate) fn set(value: &Value, path: &[&str]) -> bool {
    at(value, path).is_some_and(|v| !empty(v))
}

/// Whether a value says nothing: null, zero, false, or without content.
pub(crate) fn empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_i64() == Some(0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

/// The value along the path for writing, if it is there.
pub(crate) fn at_mut<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |v, name| v.get_mut(name)).filter(|v| !v.is_null())
}

/// The list along the path for writing, empty when absent.
pub(crate) fn items_mut<'a>(value: &'a mut Value, path: &[&str]) -> std::slice::IterMut<'a, Value> {
    at_mut(value, path).and_then(Value::as_array_mut).map_or_else(|| [].iter_mut(), |a| a.iter_mut())
}

/// The member object of that name, made when absent.
pub(crate) fn object<'a>(value: &'a mut Value, name: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let slot = &mut value[name];
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    slot
}

/// Sets a member when it is absent or null.
pub(crate) fn fill(value: &mut Value, name: &str, default: impl Into<Value>) {
    if let Value::Object(members) = value
        && members.get(name).is_none_or(Value::is_null)
    {
        members.insert(name.to_owned(), default.into());
    }
}

/// Sets a member when it is absent or says nothing (zero, empty).
pub(crate) fn fill_empty(value: &mut Value, name: &str, default: impl Into<Value>) {
    if let Value::Object(members) = value
        && members.get(name).is_none_or(empty)
    {
        members.insert(name.to_owned(), default.into());
    }
}

/// Removes a member.
pub(crate) fn remove(value: &mut Value, name: &str) -> Option<Value> {
    value.as_object_mut().and_then(|m| m.shift_remove(name))
}

/// Makes a member equal to another object's: copied, or removed when absent there.
pub(crate) fn copy(name: &str, from: &Value, to: &mut Value) {
    match from.get(name) {
        Some(value) => to[name] = value.clone(),
        None => {
            remove(to, name);
        }
    }
}
