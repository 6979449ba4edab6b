//! ConfigMaps.

use serde_json::Value;

use crate::error::Errors;
use crate::field::{flag, members};
use crate::metadata::format;
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

const KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
const LIMIT: usize = 1024 * 1024;

pub(crate) static STRATEGY: Strategy = Strategy {
    validate,
    validate_change,
    row: |map, now| {
        let count = members(map, &["data"]).count() + members(map, &["binaryData"]).count();
        vec![row::name(map), count.into(), row::age(map, now)]
    },
    ..Strategy::BASE
};

fn validate(map: &Value, errors: &mut Errors) {
    let path = Path::new("data");
    let mut size = 0;
    for (key, value) in members(map, &["data"]) {
        key_of(key, &path, errors);
        if map["binaryData"].get(key).is_some() {
            errors.invalid(&path.key(key), key, "duplicate of key present in binaryData");
        }
        size += value.as_str().map_or(0, str::len);
    }
    let path = Path::new("binaryData");
    for (key, value) in members(map, &["binaryData"]) {
        key_of(key, &path, errors);
        size += value.as_str().map_or(0, str::len) / 4 * 3;
    }
    if size > LIMIT {
        errors.too_long(&Path::ROOT.field(""), LIMIT);
    }
}

/// A key of a ConfigMap or Secret.
pub(super) fn key_of(key: &str, path: &Path<'_>, errors: &mut Errors) {
    if !format::is_config_key(key) {
        errors.invalid(&path.key(key), key, KEY);
    }
}

/// What an immutable ConfigMap or Secret may not change.
pub(super) fn validate_immutable(new: &Value, old: &Value, names: &[&str], errors: &mut Errors) {
    if !flag(old, &["immutable"]) {
        return;
    }
    if !flag(new, &["immutable"]) {
        errors.forbidden(&Path::new("immutable"), "field is immutable when `immutable` is set");
    }
    for name in names {
        if new.get(name) != old.get(name) {
            errors.forbidden(&Path::new(name), "field is immutable when `immutable` is set");
        }
    }
}

fn validate_change(new: &Value, old: &Value, errors: &mut Errors) {
    validate_immutable(new, old, &["data", "binaryData"], errors);
}
