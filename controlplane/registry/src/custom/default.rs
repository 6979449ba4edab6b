//! Fills in the defaults of a structural schema, and drops nulls that may not be.

use serde_json::Value;

use crate::field::{at, flag, members};

/// Fills in place. A null that may not be one counts as absent.
pub(super) fn fill(subject: &mut Value, schema: &Value) {
    match subject {
        Value::Object(object) => {
            for (name, inner) in members(schema, &["properties"]) {
                if let Some(default) = inner.get("default") {
                    let refused_null =
                        object.get(name).is_some_and(Value::is_null) && !flag(inner, &["nullable"]);
                    if refused_null || !object.contains_key(name) {
                        object.insert(name.to_owned(), default.clone());
                    }
                }
                if let Some(member) = object.get_mut(name) {
                    fill(member, inner);
                }
            }
            if let Some(inner) = at(schema, &["additionalProperties"]).filter(|inner| inner.is_object()) {
                let named = at(schema, &["properties"]);
                let free = |name: &str| named.is_none_or(|named| named.get(name).is_none());
                object.iter_mut().filter(|(name, _)| free(name)).for_each(|(_, member)| fill(member, inner));
            }
        }
        Value::Array(list) => {
            if let Some(inner) = at(schema, &["items"]) {
                list.iter_mut().for_each(|item| fill(item, inner));
            }
        }
        _ => {}
    }
}
