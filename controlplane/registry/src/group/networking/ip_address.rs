//! IPAddresses: one object an allocated Service address, named after it.

use serde_json::Value;

use crate::check;
use crate::error::Errors;
use crate::field::{at, text};
use crate::metadata::{NameRule, format};
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

pub(crate) static STRATEGY: Strategy = Strategy {
    unconditional_update: false,
    name: NameRule::Any,
    validate,
    validate_change: |new, old, errors| {
        check::immutable(&new["spec"], &old["spec"], &["parentRef"], &Path::new("spec"), errors);
    },
    row: |address, _| {
        let parent = &address["spec"]["parentRef"];
        let parts = ["group", "resource", "namespace", "name"].map(|n| text(parent, &[n]));
        let group = if parts[0].is_empty() { String::new() } else { format!(".{}", parts[0]) };
        let shown = format!("{}{group}/{}/{}", parts[1], parts[2], parts[3]);
        vec![row::name(address), shown.into()]
    },
    ..Strategy::BASE
};

fn validate(address: &Value, errors: &mut Errors) {
    let metadata = Path::new("metadata");
    let name = text(address, &["metadata", "name"]);
    if format::ip(name).is_none_or(|ip| ip.to_string() != name) {
        errors.invalid(&metadata.field("name"), name, "must be an IP address in canonical form");
    }
    let spec = Path::new("spec");
    let path = spec.field("parentRef");
    let Some(parent) = at(address, &["spec", "parentRef"]) else { return errors.required(&path, "") };
    check::required(parent, "resource", &path, errors);
    check::required(parent, "name", &path, errors);
}
