//! Drops what a structural schema does not name, and says what that was.

use serde_json::Value;

use crate::{
    decode::normalize,
    field::{at, flag},
    path::Path,
    schema::{Kind, Node, Schema, builtin},
};

/// Prunes in place; the paths of what was dropped, in document order.
///
/// # Errors
/// The message for metadata that has a wrong type.
pub(super) fn prune(object: &mut Value, schema: Option<&Value>) -> Result<Vec<String>, String> {
    let mut unknown = Vec::new();
    metadata(object, &Path::ROOT, &mut unknown)?;
    if let Some(schema) = schema {
        object_members(object, schema, true, &Path::ROOT, &mut unknown)?;
    }
    Ok(unknown)
}

fn value(
    subject: &mut Value,
    schema: &Value,
    path: &Path<'_>,
    unknown: &mut Vec<String>,
) -> Result<(), String> {
    match subject {
        Value::Object(_) => {
            let embedded = flag(schema, &["x-kubernetes-embedded-resource"]);
            if embedded {
                metadata(subject, path, unknown)?;
            }
            object_members(subject, schema, embedded, path, unknown)
        }
        Value::Array(list) => match at(schema, &["items"]) {
            Some(inner) => list
                .iter_mut()
                .enumerate()
                .try_for_each(|(index, item)| value(item, inner, &path.index(index), unknown)),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

fn object_members(
    subject: &mut Value,
    schema: &Value,
    is_resource: bool,
    path: &Path<'_>,
    unknown: &mut Vec<String>,
) -> Result<(), String> {
    let Value::Object(members) = subject else { return Ok(()) };
    let keep = flag(schema, &["x-kubernetes-preserve-unknown-fields"]);
    let names: Vec<_> = members.keys().cloned().collect();
    for name in names {
        if is_resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        let below = path.field(&name);
        let additional = schema.get("additionalProperties");
        let inner = at(schema, &["properties", &name]).or(additional.filter(|inner| inner.is_object()));
        match (inner, members.get_mut(&name)) {
            (Some(inner), Some(member)) => value(member, inner, &below, unknown)?,
            _ if keep || additional == Some(&Value::Bool(true)) => {}
            _ => {
                unknown.push(below.to_string());
                members.shift_remove(&name);
            }
        }
    }
    Ok(())
}

/// Metadata obeys the built-in schema, here and in embedded resources.
fn metadata(object: &mut Value, path: &Path<'_>, unknown: &mut Vec<String>) -> Result<(), String> {
    let Some(metadata) = object.get_mut("metadata") else { return Ok(()) };
    let types = builtin::types();
    let Some(id) = types.id(builtin::OBJECT_META) else { return Ok(()) };
    let schema = Schema::new(types.clone(), Node::of(Kind::Object(id)));
    let found = normalize(metadata, &schema)?;
    let prefix = path.field("metadata").to_string();
    unknown.extend(found.unknown.into_iter().map(|inner| format!("{prefix}.{inner}")));
    Ok(())
}
