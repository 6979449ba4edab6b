//! events.k8s.io/v1 Events are core/v1 Events under other field names.

use serde_json::Value;

/// (events.k8s.io, core)
const NAMES: &[(&str, &str)] = &[
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn rename(object: &mut Value, pairs: impl Iterator<Item = (&'static str, &'static str)>) {
    let Some(members) = object.as_object_mut() else { return };
    for (from, to) in pairs {
        if let Some(value) = members.shift_remove(from) {
            members.insert(to.to_owned(), value);
        }
    }
}

/// To the core form.
pub(super) fn to_core(object: &mut Value) {
    rename(object, NAMES.iter().copied());
}

/// To the events.k8s.io form.
pub(super) fn to_events(object: &mut Value) {
    rename(object, NAMES.iter().map(|(a, b)| (*b, *a)));
    for name in ["reportingController", "reportingInstance"] {
        if object.get(name).is_some_and(|v| v == "") {
            crate::field::remove(object, name);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn renames_both_ways() {
        let mut event = json!({"note": "n", "regarding": {"kind": "Pod"}, "reason": "r"});
        let before = event.clone();
        to_core(&mut event);
        assert_eq!(event, json!({"message": "n", "involvedObject": {"kind": "Pod"}, "reason": "r"}));
        to_events(&mut event);
        assert_eq!(event, before);
    }
}
