//! Walks a value along its schema: refuses wrong types, drops unknown and null members, writes canonical scalars.

use serde_json::Value;
use skep_api::{Quantity, time};

use crate::path::Path;
use crate::schema::{Kind, Schema, SchemaRef};

/// What a walk found besides wrong types.
#[derive(Debug, Default)]
pub struct Findings {
    /// Paths of unknown fields, in document order.
    pub unknown: Vec<String>,
}

/// Normalises a value in place.
///
/// # Errors
/// The message for the first value of a wrong type.
pub fn normalize(value: &mut Value, schema: &Schema) -> Result<Findings, String> {
    let mut findings = Findings::default();
    walk(value, schema.root(), &Path::ROOT, &mut findings, "")?;
    Ok(findings)
}

/// How decoding errors call a JSON value.
pub(super) fn json_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn walk(
    value: &mut Value,
    schema: SchemaRef<'_>,
    path: &Path<'_>,
    findings: &mut Findings,
    owner: &str,
) -> Result<(), String> {
    if value.is_null() && schema.node().nullable {
        return Ok(());
    }
    match schema.kind() {
        Kind::Object(_) => walk_object(value, schema, path, findings, owner),
        Kind::Map(_) => walk_map(value, schema, path, findings, owner),
        Kind::Array(_) => walk_array(value, schema, path, findings, owner),
        Kind::Raw | Kind::Any(_) => Ok(()),
        _ => scalar(value, schema, path, owner),
    }
}

fn walk_object(
    value: &mut Value,
    schema: SchemaRef<'_>,
    path: &Path<'_>,
    findings: &mut Findings,
    owner: &str,
) -> Result<(), String> {
    if !value.is_object() {
        return Err(mismatch(value, schema, path, owner));
    }
    let (Value::Object(members), Some(object)) = (value, schema.object()) else { return Ok(()) };
    let mut failed = None;
    members.retain(|name, member| {
        let Some(inner) = schema.field(name) else {
            if !schema.preserves_unknown() {
                findings.unknown.push(path.field(name).to_string());
            }
            return schema.preserves_unknown();
        };
        if member.is_null() && !inner.node().nullable {
            return false;
        }
        if failed.is_none()
            && let Err(detail) = walk(member, inner, &path.field(name), findings, object.short_name())
        {
            failed = Some(detail);
        }
        keeps(member, inner)
    });
    failed.map_or(Ok(()), Err)
}

/// Whether a member is kept: empty optional values of built-in kinds mean absent.
fn keeps(member: &Value, schema: SchemaRef<'_>) -> bool {
    if !schema.omit_empty() && !schema.drops_empty_container() {
        return true;
    }
    match member {
        Value::String(s) => !s.is_empty(),
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_i64() != Some(0),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Null => false,
    }
}

fn walk_map(
    value: &mut Value,
    schema: SchemaRef<'_>,
    path: &Path<'_>,
    findings: &mut Findings,
    owner: &str,
) -> Result<(), String> {
    if !value.is_object() {
        return Err(mismatch(value, schema, path, owner));
    }
    let (Value::Object(members), Some(values)) = (value, schema.values()) else { return Ok(()) };
    for (key, member) in members.iter_mut() {
        if member.is_null() && matches!(values.kind(), Kind::String | Kind::Bytes) && !values.node().nullable
        {
            *member = Value::from("");
            continue;
        }
        if matches!(values.kind(), Kind::Quantity) {
            quantity(member, true)?;
            continue;
        }
        walk(member, values, &path.field(key), findings, owner)?;
    }
    Ok(())
}

fn walk_array(
    value: &mut Value,
    schema: SchemaRef<'_>,
    path: &Path<'_>,
    findings: &mut Findings,
    owner: &str,
) -> Result<(), String> {
    if !value.is_array() {
        return Err(mismatch(value, schema, path, owner));
    }
    let (Value::Array(items), Some(inner)) = (value, schema.items()) else { return Ok(()) };
    for (i, item) in items.iter_mut().enumerate() {
        if item.is_null() && matches!(inner.kind(), Kind::Object(_)) {
            *item = Value::Object(serde_json::Map::new());
        }
        walk(item, inner, &path.index(i), findings, owner)?;
    }
    Ok(())
}

fn scalar(value: &mut Value, schema: SchemaRef<'_>, path: &Path<'_>, owner: &str) -> Result<(), String> {
    let fits = match schema.kind() {
        Kind::String => value.is_string(),
        Kind::Bool => value.is_boolean(),
        Kind::Int32 => whole(value).is_some_and(|n| i32::try_from(n).is_ok()),
        Kind::Int64 => whole(value).is_some(),
        Kind::Double => value.is_number(),
        Kind::IntOrString => value.is_string() || whole(value).is_some_and(|n| i32::try_from(n).is_ok()),
        Kind::Quantity => return quantity(value, false),
        Kind::Time => return timestamp(value, time::seconds),
        Kind::MicroTime => return timestamp(value, time::micros),
        Kind::Bytes => return base64(value, schema, path, owner),
        _ => true,
    };
    if !fits {
        return Err(mismatch(value, schema, path, owner));
    }
    if matches!(schema.kind(), Kind::Int32 | Kind::Int64 | Kind::IntOrString)
        && value.is_f64()
        && let Some(number) = whole(value)
    {
        *value = number.into();
    }
    Ok(())
}

/// The number when it is whole, also when it is written as `1.0`.
fn whole(value: &Value) -> Option<i64> {
    value.as_i64()
}

/// Writes the canonical form. Amounts of named resources have no parts finer than a thousandth.
fn quantity(value: &mut Value, of_resource: bool) -> Result<(), String> {
    let text = match &*value {
        Value::String(s) => s.trim().to_owned(),
        Value::Number(n) => n.to_string(),
        Value::Null => "0".to_owned(),
        other => other.to_string(),
    };
    let parsed = text.parse::<Quantity>().map_err(|e| e.to_string())?;
    let kept = if of_resource { parsed.rounded_to_milli() } else { parsed };
    let canonical = kept.to_string();
    // A sign that says nothing is kept, as upstream keeps it.
    if text.strip_prefix('+') != Some(&canonical) {
        *value = Value::from(canonical);
    }
    Ok(())
}

fn timestamp(value: &mut Value, write: fn(jiff::Timestamp) -> String) -> Result<(), String> {
    let Some(text) = value.as_str() else {
        return Err(format!("json: cannot unmarshal {} into Go value of type string", json_name(value)));
    };
    if text.is_empty() {
        return Err(format!(
            "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"2006\""
        ));
    }
    let parsed = time::parse(text).ok_or_else(|| {
        format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\"")
    })?;
    *value = Value::from(write(parsed));
    Ok(())
}

fn base64(value: &Value, schema: SchemaRef<'_>, path: &Path<'_>, owner: &str) -> Result<(), String> {
    let Some(text) = value.as_str() else { return Err(mismatch(value, schema, path, owner)) };
    match crate::base64::wrong_byte(text) {
        Some(at) => Err(format!("illegal base64 data at input byte {at}")),
        None => Ok(()),
    }
}

fn mismatch(value: &Value, schema: SchemaRef<'_>, path: &Path<'_>, owner: &str) -> String {
    let given = match value {
        Value::Number(n) if matches!(schema.kind(), Kind::Int32 | Kind::Int64) => format!("number {n}"),
        other => json_name(other).to_owned(),
    };
    let wanted = type_name(schema);
    let names = path.names();
    if names.is_empty() || owner.is_empty() {
        return format!("json: cannot unmarshal {given} into Go value of type {wanted}");
    }
    format!("json: cannot unmarshal {given} into Go struct field {owner}.{names} of type {wanted}")
}

/// The type's name as decoding errors say it.
fn type_name(schema: SchemaRef<'_>) -> String {
    match schema.kind() {
        Kind::String | Kind::Time | Kind::MicroTime | Kind::Quantity | Kind::IntOrString => "string".into(),
        Kind::Int32 => "int32".into(),
        Kind::Int64 => "int64".into(),
        Kind::Double => "float64".into(),
        Kind::Bool => "bool".into(),
        Kind::Bytes => "[]uint8".into(),
        Kind::Raw | Kind::Any(_) => "map[string]interface {}".into(),
        Kind::Array(_) => format!("[]{}", schema.items().map(type_name).unwrap_or_default()),
        Kind::Map(_) => format!("map[string]{}", schema.values().map(type_name).unwrap_or_default()),
        Kind::Object(_) => schema.object().map(|o| dotted(&o.name)).unwrap_or_default(),
    }
}

fn dotted(name: &str) -> String {
    let mut parts = name.rsplit('.');
    let (kind, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or("v1"));
    format!("{version}.{kind}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::Registry;
    use crate::decode::{DecodeError, FieldValidation};

    fn decode(
        body: &serde_json::Value,
        mode: FieldValidation,
    ) -> Result<(serde_json::Value, Vec<String>), DecodeError> {
        let registry = Registry::builtin();
        let deployments = registry.lookup("apps", "v1", "deployments").unwrap();
        deployments.decode(body.to_string().as_bytes(), mode)
    }

    #[test]
    fn names_unknown_fields_and_drops_them() {
        let body = json!({"spec": {"foo": 1, "template": {"spec": {"containers": [{"imagee": "x"}]}}}});
        let (value, warnings) = decode(&body, FieldValidation::Warn).unwrap();
        assert_eq!(
            warnings,
            ["unknown field \"spec.foo\"", "unknown field \"spec.template.spec.containers[0].imagee\""]
        );
        assert!(value["spec"].get("foo").is_none());
        let error = decode(&body, FieldValidation::Strict).unwrap_err().to_string();
        assert!(error.starts_with("strict decoding error: unknown field \"spec.foo\", unknown"), "{error}");
    }

    #[test]
    fn refuses_wrong_types_naming_the_field() {
        let error = decode(&json!({"spec": {"replicas": "1"}}), FieldValidation::Ignore).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into \
             Go struct field DeploymentSpec.spec.replicas of type int32"
        );
    }

    #[test]
    fn writes_canonical_quantities_and_drops_nulls() {
        let limits = json!({"cpu": "1000m", "memory": "1024Mi"});
        let body = json!({"spec": {"paused": false, "replicas": 0, "template": {"spec": {"nodeName": null,
            "containers": [{"name": "c", "args": [], "resources": {"limits": limits}}]}}}});
        let (value, _) = decode(&body, FieldValidation::Strict).unwrap();
        let pod = &value["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][0]["resources"]["limits"], json!({"cpu": "1", "memory": "1Gi"}));
        assert!(pod.get("nodeName").is_none() && pod["containers"][0].get("args").is_none());
        assert!(value["spec"].get("paused").is_none());
        assert_eq!(value["spec"]["replicas"], 0);
    }

    #[test]
    fn refuses_another_kind() {
        let error = decode(&json!({"apiVersion": "apps/v1", "kind": "ReplicaSet"}), FieldValidation::Ignore);
        assert!(matches!(error, Err(DecodeError::Kind { .. })));
    }
}
