//! Request bodies to checked objects: parse, find duplicate and unknown fields, refuse wrong types, normalise.
//!
//! What leaves here obeys its schema: no null or unknown members, quantities and times in canonical form.

use serde_json::Value;
use thiserror::Error;

use crate::schema::{GroupVersionKind, Schema};

mod check;
mod parse;
mod wire;

pub use check::{Findings, normalize};
pub use parse::parse;

/// What to do about unknown and duplicate fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and warn.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// Why a body is refused before validation.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// Neither JSON nor YAML.
    #[error("couldn't get version/kind; json parse error: {0}")]
    Syntax(String),
    /// The body is not an object.
    #[error(
        "couldn't get version/kind; json parse error: json: cannot unmarshal {0} into Go value of type struct"
    )]
    NotAnObject(&'static str),
    /// The body's apiVersion is not the request's.
    #[error("the API version in the data ({actual}) does not match the expected API version ({expected})")]
    Version {
        /// What the body says.
        actual: String,
        /// What the path says.
        expected: String,
    },
    /// The body's kind is not the request's.
    #[error("the kind in the data ({actual}) does not match the expected kind ({expected})")]
    Kind {
        /// What the body says.
        actual: String,
        /// What the path says.
        expected: String,
    },
    /// A value has the wrong type.
    #[error("{kind} in version \"{version}\" cannot be handled as a {kind}: {detail}")]
    Type {
        /// The object's kind.
        kind: String,
        /// Its version.
        version: String,
        /// What is wrong.
        detail: String,
    },
    /// Unknown or duplicate fields under strict validation.
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
}

/// Decodes a body of the given kind: JSON, the protobuf form by its magic bytes, YAML otherwise.
///
/// Absent apiVersion and kind are filled in. Warnings name duplicate and unknown fields (unless ignored).
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(
    schema: &Schema,
    gvk: &GroupVersionKind,
    body: &[u8],
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), DecodeError> {
    let (value, duplicates) = parse(body)?;
    decode_value(schema, gvk, value, duplicates, validation)
}

/// Checks an object that is already parsed, such as a patch's result; `found` are findings made before.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_value(
    schema: &Schema,
    gvk: &GroupVersionKind,
    mut value: Value,
    mut found: Vec<String>,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), DecodeError> {
    expect_kind(&mut value, gvk)?;
    let findings = normalize(&mut value, schema).map_err(|detail| DecodeError::Type {
        kind: gvk.kind.to_string(),
        version: gvk.version.to_string(),
        detail,
    })?;
    found.extend(findings.unknown.iter().map(|path| format!("unknown field {path:?}")));
    match validation {
        FieldValidation::Ignore => Ok((value, Vec::new())),
        FieldValidation::Strict if !found.is_empty() => Err(DecodeError::Strict(found)),
        _ => Ok((value, found)),
    }
}

/// Refuses an object of another kind, and fills in apiVersion and kind where they are absent.
pub(crate) fn expect_kind(value: &mut Value, gvk: &GroupVersionKind) -> Result<(), DecodeError> {
    let Some(object) = value.as_object_mut() else {
        return Err(DecodeError::NotAnObject(check::json_name(value)));
    };
    let expected = gvk.api_version();
    match object.get("apiVersion").and_then(Value::as_str) {
        Some(actual) if !actual.is_empty() && actual != expected => {
            return Err(DecodeError::Version { actual: actual.to_owned(), expected });
        }
        _ => object.insert("apiVersion".into(), expected.into()),
    };
    match object.get("kind").and_then(Value::as_str) {
        Some(actual) if !actual.is_empty() && actual != &*gvk.kind => {
            return Err(DecodeError::Kind { actual: actual.to_owned(), expected: gvk.kind.to_string() });
        }
        _ => object.insert("kind".into(), gvk.kind.as_ref().into()),
    };
    Ok(())
}
