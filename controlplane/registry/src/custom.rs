//! Custom resources: what a CustomResourceDefinition says, as resources of the registry.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::decode::{DecodeError, FieldValidation};
use crate::error::Errors;
use crate::registry::InstallError;
use crate::resource::Resource;
use crate::row;
use crate::schema::GroupVersionKind;

/// One version of a custom resource.
pub(crate) struct Custom {
    version: Value,
}

/// The resources that a definition serves.
pub(crate) fn resources(_definition: &Value) -> Result<Vec<Resource>, InstallError> {
    Ok(Vec::new())
}

/// Sorts versions: stable before beta before alpha, newest first, others last by name.
pub(crate) fn version_order(version: &str) -> (u8, std::cmp::Reverse<u32>, std::cmp::Reverse<u32>, String) {
    use std::cmp::Reverse;
    let other = || (3, Reverse(0), Reverse(0), version.to_owned());
    let Some(rest) = version.strip_prefix('v') else { return other() };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, stage) = rest.split_at(end);
    let Ok(major) = major.parse::<u32>() else { return other() };
    let staged = |rank, digits: &str| match digits.parse::<u32>() {
        Ok(minor) => (rank, Reverse(major), Reverse(minor), String::new()),
        Err(_) => other(),
    };
    if stage.is_empty() {
        (0, Reverse(major), Reverse(0), String::new())
    } else if let Some(minor) = stage.strip_prefix("beta") {
        staged(1, minor)
    } else if let Some(minor) = stage.strip_prefix("alpha") {
        staged(2, minor)
    } else {
        other()
    }
}

impl Custom {
    pub(crate) fn decode(
        &self,
        _gvk: &GroupVersionKind,
        value: Value,
        _duplicates: Vec<String>,
        _mode: FieldValidation,
    ) -> Result<(Value, Vec<String>), DecodeError> {
        Ok((value, Vec::new()))
    }

    pub(crate) fn default(&self, _object: &mut Value) {}

    pub(crate) fn validate(&self, _object: &Value, _old: Option<&Value>, _errors: &mut Errors) {}

    pub(crate) fn selectable_fields(&self, _object: &Value) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    pub(crate) fn is_selectable(&self, _field: &str) -> bool {
        false
    }

    pub(crate) fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![row::name(object), row::age(object, now)]
    }

    pub(crate) fn has_status(&self) -> bool {
        crate::field::at(&self.version, &["subresources", "status"]).is_some()
    }

    pub(crate) fn scale(&self) -> Option<&Value> {
        crate::field::at(&self.version, &["subresources", "scale"])
    }

    /// The schema as its author wrote it, for the OpenAPI documents.
    pub(crate) fn published_schema(&self) -> Option<&Value> {
        crate::field::at(&self.version, &["schema", "openAPIV3Schema"])
    }
}
