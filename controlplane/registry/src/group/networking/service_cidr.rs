//! ServiceCIDRs: the ranges that Service addresses come from.

use serde_json::Value;

use crate::error::Errors;
use crate::field::items;
use crate::metadata::format;
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

pub(crate) static STRATEGY: Strategy = Strategy {
    unconditional_update: false,
    status: true,
    validate,
    validate_change: |new, old, errors| {
        crate::check::immutable(&new["spec"], &old["spec"], &["cidrs"], &Path::new("spec"), errors);
    },
    row: |range, now| {
        let blocks: Vec<&str> = items(range, &["spec", "cidrs"]).iter().filter_map(Value::as_str).collect();
        vec![row::name(range), blocks.join(",").into(), row::age(range, now)]
    },
    ..Strategy::BASE
};

fn validate(range: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    let list = spec.field("cidrs");
    let blocks = items(range, &["spec", "cidrs"]);
    if blocks.is_empty() {
        errors.required(&list, "at least one CIDR required");
    }
    if blocks.len() > 2 {
        errors.invalid(&list, blocks.to_vec(), "may only hold up to 2 values");
    }
    for (i, block) in blocks.iter().filter_map(Value::as_str).enumerate() {
        let good =
            format::cidr(block).is_some_and(|(address, bits)| format::network(address, bits) == address);
        if !good {
            errors.invalid(&list.index(i), block, "must be a valid CIDR value in canonical form");
        }
    }
}
