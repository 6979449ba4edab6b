//! Selectors: label selectors in their text and object forms, and field selectors.

mod field;
mod label;

pub use field::{FieldRequirement, FieldSelector};
pub use label::{LabelSelector, Operator, Requirement};

use thiserror::Error;

/// Why a selector cannot be read.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum SelectorError {
    /// The text does not follow the grammar.
    #[error("unable to parse requirement: found '{found}', expected: {expected}")]
    Syntax {
        /// What stands there.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// A key is no label name.
    #[error(
        "unable to parse requirement: <nil>: Invalid value: {0:?}: name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
    )]
    Key(String),
    /// A value is no label value.
    #[error(
        "unable to parse requirement: values: Invalid value: {0:?}: a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
    )]
    Value(String),
    /// The operator needs other values.
    #[error("{operator}: {detail}")]
    Values {
        /// The operator.
        operator: &'static str,
        /// What it needs.
        detail: &'static str,
    },
    /// The operator does not exist.
    #[error("{0:?} is not a valid label selector operator")]
    Operator(String),
    /// A field selector's term has no operator.
    #[error("invalid selector: {0:?}; can't understand {0:?}")]
    Term(String),
}

/// Whether the text is a label key: an optional DNS prefix and a name.
#[must_use]
pub fn is_label_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let prefix_ok = prefix.is_none_or(|p| {
        !p.is_empty()
            && p.len() <= 253
            && p.split('.').all(|label| {
                let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
                let bytes = label.as_bytes();
                edge(bytes.first())
                    && edge(bytes.last())
                    && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
            })
    });
    prefix_ok && !name.is_empty() && is_label_value(name)
}

/// Whether the text is a label value (empty is one).
#[must_use]
pub fn is_label_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    let edge = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    value.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
