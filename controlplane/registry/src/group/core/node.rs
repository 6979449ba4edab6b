//! Nodes.

use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::check;
use crate::error::Errors;
use crate::field::{flag, items, items_mut, members, text};
use crate::metadata::format;
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

pub(crate) static STRATEGY: Strategy = Strategy {
    selectable: &["spec.unschedulable"],
    default,
    prepare_update: |new, old| crate::field::copy("status", old, new),
    prepare_status: |_, _| {},
    validate,
    validate_change,
    fields: |node, sink| sink("spec.unschedulable", flag(node, &["spec", "unschedulable"]).to_string()),
    row: cells,
    ..Strategy::BASE
};

fn default(node: &mut Value) {
    let first = text(node, &["spec", "podCIDR"]).to_owned();
    let list = items(node, &["spec", "podCIDRs"]);
    if !first.is_empty() && list.first().is_none_or(|c| c != &*first) {
        node["spec"]["podCIDRs"] = json!([first]);
    } else if first.is_empty()
        && let Some(one) = list.first().cloned()
    {
        node["spec"]["podCIDR"] = one;
    }
    for taint in items_mut(node, &["spec", "taints"]) {
        if text(taint, &["value"]).is_empty() {
            crate::field::remove(taint, "value");
        }
    }
}

fn validate(node: &Value, errors: &mut Errors) {
    taints(node, errors);
    let spec = Path::new("spec");
    let list = spec.field("podCIDRs");
    let blocks = items(node, &["spec", "podCIDRs"]);
    let parsed: Vec<_> = blocks.iter().filter_map(|b| format::cidr(b.as_str()?)).collect();
    for (i, block) in blocks.iter().enumerate() {
        if block.as_str().and_then(format::cidr).is_none() {
            errors.invalid(
                &list.index(i),
                block.clone(),
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            );
        }
    }
    let dual = parsed.len() == 2 && parsed[0].0.is_ipv4() != parsed[1].0.is_ipv4();
    if blocks.len() > 1 && parsed.len() == blocks.len() && !dual {
        errors.invalid(&list, blocks.to_vec(), "may specify no more than one CIDR for each IP family");
    }
    let status = Path::new("status");
    for name in ["capacity", "allocatable"] {
        let path = status.field(name);
        for (resource, amount) in members(node, &["status", name]) {
            check::quantity_non_negative(amount, &path.key(resource), errors);
        }
    }
}

fn taints(node: &Value, errors: &mut Errors) {
    let path = Path::new("metadata");
    let list = path.field("taints");
    let mut seen = HashSet::new();
    for (i, taint) in items(node, &["spec", "taints"]).iter().enumerate() {
        let path = list.index(i);
        let (key, effect) = (text(taint, &["key"]), text(taint, &["effect"]));
        check::qualified_name(key, &path.field("key"), errors);
        if let Some(problem) = format::label_value_problem(text(taint, &["value"])) {
            errors.invalid(&path.field("value"), text(taint, &["value"]), problem);
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        check::required_one_of(taint, "effect", &effects, &path, errors);
        if !seen.insert((key, effect)) {
            errors.duplicate(&path, taint.clone());
        }
    }
}

fn validate_change(new: &Value, old: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    let (now, before) = (items(new, &["spec", "podCIDRs"]), items(old, &["spec", "podCIDRs"]));
    if !before.is_empty() && now != before {
        errors.forbidden(
            &spec.field("podCIDRs"),
            "node updates may not change podCIDR except from \"\" to valid",
        );
    }
    let provider = text(old, &["spec", "providerID"]);
    if !provider.is_empty() && text(new, &["spec", "providerID"]) != provider {
        errors.forbidden(
            &spec.field("providerID"),
            "node updates may not change providerID except from \"\" to valid",
        );
    }
}

fn cells(node: &Value, now: Timestamp) -> Vec<Value> {
    let info = |name: &str| {
        let value = text(node, &["status", "nodeInfo", name]);
        Value::from(if value.is_empty() { "<unknown>" } else { value })
    };
    vec![
        row::name(node),
        status(node).into(),
        roles(node).into(),
        row::age(node, now),
        text(node, &["status", "nodeInfo", "kubeletVersion"]).into(),
        address(node, "InternalIP"),
        address(node, "ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn status(node: &Value) -> String {
    let ready = items(node, &["status", "conditions"]).iter().find(|c| text(c, &["type"]) == "Ready");
    let mut words = vec![match ready.map(|c| text(c, &["status"])) {
        None => "Unknown",
        Some("True") => "Ready",
        Some(_) => "NotReady",
    }];
    if flag(node, &["spec", "unschedulable"]) {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = members(node, &["metadata", "labels"])
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role),
            _ if key == "kubernetes.io/role" => value.as_str().filter(|v| !v.is_empty()),
            _ => None,
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }
}

fn address(node: &Value, kind: &str) -> Value {
    let found = items(node, &["status", "addresses"]).iter().find(|a| text(a, &["type"]) == kind);
    row::or_none(found.map_or("", |a| text(a, &["address"])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_readiness_cordon_and_roles() {
        let node = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(status(&node), "Ready,SchedulingDisabled");
        assert_eq!(roles(&node), "control-plane");
        assert_eq!(status(&json!({})), "Unknown");
    }
}
