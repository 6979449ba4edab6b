//! Patches: strategic merge by schema, and the two RFC formats.

use serde_json::Value;
use thiserror::Error;

mod strategic;

pub use strategic::strategic_merge;

/// Why a patch cannot be applied.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum PatchError {
    /// The patch is malformed.
    #[error("{0}")]
    Malformed(String),
    /// A list item of the patch lacks its merge key.
    #[error("map: {item} does not contain declared merge key: {key}")]
    MissingKey {
        /// The item.
        item: String,
        /// The key.
        key: String,
    },
    /// A directive that does not exist.
    #[error("Unknown patch type: {0:?}: use replace, merge or delete")]
    Directive(String),
    /// A JSON patch operation cannot be applied.
    #[error("the server rejected our request due to an error in our request: {0}")]
    Operation(String),
}

/// Applies an RFC 7386 merge patch.
#[must_use]
pub fn merge(mut original: Value, patch: &Value) -> Value {
    json_patch::merge(&mut original, patch);
    original
}

/// Applies an RFC 6902 JSON patch.
///
/// # Errors
/// [`PatchError::Malformed`] when the operations cannot be read, [`PatchError::Operation`] when one does not fit.
pub fn json(mut original: Value, patch: &Value) -> Result<Value, PatchError> {
    let operations: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|e| PatchError::Malformed(e.to_string()))?;
    json_patch::patch(&mut original, &operations).map_err(|e| PatchError::Operation(e.to_string()))?;
    Ok(original)
}
