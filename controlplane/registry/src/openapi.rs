//! OpenAPI documents of everything that is served.

use serde_json::{Value, json};

use crate::registry::Registry;

/// The OpenAPI v2 document.
#[must_use]
pub fn v2(_registry: &Registry) -> Value {
    json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.36"}, "paths": {}, "definitions": {}})
}

/// The OpenAPI v3 root: group version paths (`api/v1`, `apis/apps/v1`) and the hashed URLs of their documents.
#[must_use]
pub fn v3_root(_registry: &Registry) -> Value {
    json!({"paths": {}})
}

/// The OpenAPI v3 document of one group version.
#[must_use]
pub fn v3_group(_registry: &Registry, _group: &str, _version: &str) -> Option<Value> {
    None
}
