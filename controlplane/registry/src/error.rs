//! What is wrong with a field, in the words and reasons that Kubernetes clients know.

use std::fmt;

use serde_json::Value;

use crate::path::Path;

/// Why a field is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It must be present.
    Required,
    /// Its value is malformed or not allowed to change.
    Invalid,
    /// Its value is none of the allowed ones.
    NotSupported,
    /// Its value is there twice.
    Duplicate,
    /// It must not be set here.
    Forbidden,
    /// Its text is too long.
    TooLong,
    /// It holds too many items.
    TooMany,
    /// It names something that does not exist.
    NotFound,
    /// Its value has the wrong type.
    TypeInvalid,
}

impl Reason {
    /// The cause reason in a Status.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
        }
    }
}

/// One refused field.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// Why.
    pub reason: Reason,
    /// Where, as `spec.containers[0].name`.
    pub field: String,
    /// The refused value, `Null` when there is none to show.
    pub value: Value,
    /// What would be right.
    pub detail: String,
}

impl FieldError {
    /// The message of the cause: everything but the field.
    #[must_use]
    pub fn message(&self) -> String {
        let title = self.reason.title();
        let mut text = match (self.reason, &self.value) {
            (Reason::Required | Reason::Forbidden | Reason::TooLong, _) | (_, Value::Null) => {
                title.to_owned()
            }
            (_, Value::String(s)) => format!("{title}: {s:?}"),
            (_, value) => format!("{title}: {value}"),
        };
        if matches!((self.reason, &self.value), (Reason::Invalid, Value::Null)) {
            text.push_str(": null");
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message())
    }
}

/// Collects what a validation finds.
#[derive(Debug, Default)]
pub struct Errors {
    found: Vec<FieldError>,
}

impl Errors {
    /// Nothing found so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was found.
    #[must_use]
    pub fn into_vec(self) -> Vec<FieldError> {
        self.found
    }

    /// How many were found so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether nothing was found so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Adds one of any reason.
    pub fn push(&mut self, reason: Reason, path: &Path<'_>, value: Value, detail: impl Into<String>) {
        self.found.push(FieldError { reason, field: path.to_string(), value, detail: detail.into() });
    }

    /// The field must be present.
    pub fn required(&mut self, path: &Path<'_>, detail: &str) {
        self.push(Reason::Required, path, Value::Null, detail);
    }

    /// The value is wrong.
    pub fn invalid(&mut self, path: &Path<'_>, value: impl Into<Value>, detail: impl Into<String>) {
        self.push(Reason::Invalid, path, value.into(), detail);
    }

    /// The field must not be set, or not change.
    pub fn forbidden(&mut self, path: &Path<'_>, detail: &str) {
        self.push(Reason::Forbidden, path, Value::Null, detail);
    }

    /// The value appeared before.
    pub fn duplicate(&mut self, path: &Path<'_>, value: impl Into<Value>) {
        self.push(Reason::Duplicate, path, value.into(), "");
    }

    /// The text is longer than allowed.
    pub fn too_long(&mut self, path: &Path<'_>, max: usize) {
        self.push(Reason::TooLong, path, Value::Null, format!("may not be more than {max} bytes"));
    }

    /// More items than allowed.
    pub fn too_many(&mut self, path: &Path<'_>, actual: usize, max: usize) {
        self.push(Reason::TooMany, path, actual.into(), format!("must have at most {max} items"));
    }

    /// What the field names does not exist.
    pub fn not_found(&mut self, path: &Path<'_>, value: impl Into<Value>) {
        self.push(Reason::NotFound, path, value.into(), "");
    }

    /// The value is none of the supported ones.
    pub fn not_supported(&mut self, path: &Path<'_>, value: impl Into<Value>, supported: &[&str]) {
        let mut sorted = supported.to_vec();
        sorted.sort_unstable();
        let quoted: Vec<String> = sorted.iter().map(|s| format!("{s:?}")).collect();
        let detail = if quoted.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", quoted.join(", "))
        };
        self.push(Reason::NotSupported, path, value.into(), detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_value_and_detail() {
        let mut errors = Errors::new();
        let spec = Path::new("spec");
        errors.invalid(&spec.field("replicas"), -1, "must be greater than or equal to 0");
        errors.not_supported(&spec.field("type"), "X", &["B", "A"]);
        errors.required(&spec.field("selector"), "");
        let texts: Vec<String> = errors.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(texts[0], "spec.replicas: Invalid value: -1: must be greater than or equal to 0");
        assert_eq!(texts[1], "spec.type: Unsupported value: \"X\": supported values: \"A\", \"B\"");
        assert_eq!(texts[2], "spec.selector: Required value");
    }
}
