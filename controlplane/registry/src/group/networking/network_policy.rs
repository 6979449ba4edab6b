//! NetworkPolicies.

use serde_json::{Value, json};

use crate::check;
use crate::error::Errors;
use crate::field::{at, fill, fill_empty, int, items, items_mut, object, set, text};
use crate::metadata::format;
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

pub(crate) static STRATEGY: Strategy = Strategy {
    generation: true,
    default,
    validate,
    row: |policy, now| {
        vec![row::name(policy), row::selector(policy["spec"].get("podSelector")), row::age(policy, now)]
    },
    ..Strategy::BASE
};

fn default(policy: &mut Value) {
    let spec = object(policy, "spec");
    fill(spec, "podSelector", json!({}));
    for list in ["ingress", "egress"] {
        for rule in items_mut(spec, &[list]) {
            for port in items_mut(rule, &["ports"]) {
                fill_empty(port, "protocol", "TCP");
            }
        }
    }
    if !set(spec, &["policyTypes"]) {
        let both = set(spec, &["egress"]);
        spec["policyTypes"] = if both { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    }
}

fn validate(policy: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &policy["spec"];
    check::selector(spec.get("podSelector"), &path.field("podSelector"), errors);
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        let list_path = path.field(list);
        for (i, rule) in items(spec, &[list]).iter().enumerate() {
            let path = list_path.index(i);
            let ports = path.field("ports");
            for (i, one) in items(rule, &["ports"]).iter().enumerate() {
                port(one, &ports.index(i), errors);
            }
            let places = path.field(peers);
            for (i, one) in items(rule, &[peers]).iter().enumerate() {
                peer(one, &places.index(i), errors);
            }
        }
    }
    let types = items(spec, &["policyTypes"]);
    let list = path.field("policyTypes");
    if types.len() > 2 {
        errors.invalid(&list, types.to_vec(), "may not specify more than two policyTypes");
        return;
    }
    for (i, kind) in types.iter().filter_map(Value::as_str).enumerate() {
        if !matches!(kind, "Ingress" | "Egress") {
            errors.not_supported(&list.index(i), kind, &["Egress", "Ingress"]);
        }
    }
}

fn port(port: &Value, path: &Path<'_>, errors: &mut Errors) {
    check::one_of(port, "protocol", &["SCTP", "TCP", "UDP"], path, errors);
    let number = port.get("port");
    if number.is_some() {
        check::port_or_name(number, &path.field("port"), errors);
    }
    let Some(end) = int(port, &["endPort"]) else { return };
    let place = path.field("endPort");
    match number {
        None => errors.invalid(&place, end, "must be specified together with `port`"),
        Some(Value::String(_)) => {
            errors.invalid(&place, end, "may not be specified when `port` is non-numeric")
        }
        Some(first) => {
            if first.as_i64().is_some_and(|first| end < first) {
                errors.invalid(&place, end, "must be greater than or equal to `port`");
            }
            check::port_number(end, &place, errors);
        }
    }
}

fn peer(peer: &Value, path: &Path<'_>, errors: &mut Errors) {
    let selectors = ["podSelector", "namespaceSelector"];
    let mut seen = 0;
    for name in selectors {
        if at(peer, &[name]).is_some() {
            seen += 1;
            check::selector(peer.get(name), &path.field(name), errors);
        }
    }
    if let Some(block) = at(peer, &["ipBlock"]) {
        if seen > 0 {
            errors.forbidden(path, "may not specify both ipBlock and another peer");
        }
        ip_block(block, &path.field("ipBlock"), errors);
    } else if seen == 0 {
        errors.required(path, "must specify a peer");
    }
}

fn ip_block(block: &Value, path: &Path<'_>, errors: &mut Errors) {
    let place = path.field("cidr");
    let text_of_block = text(block, &["cidr"]);
    if text_of_block.is_empty() {
        return errors.required(&place, "");
    }
    let Some(outer) = canonical_cidr(text_of_block) else {
        return errors.invalid(&place, text_of_block, CIDR);
    };
    let list = path.field("except");
    for (i, except) in items(block, &["except"]).iter().filter_map(Value::as_str).enumerate() {
        let place = list.index(i);
        match canonical_cidr(except) {
            None => errors.invalid(&place, except, CIDR),
            Some(inner) if inner.1 <= outer.1 || !format::cidr_contains(outer, inner.0) => {
                errors.invalid(&place, except, "must be a strict subset of `cidr`");
            }
            Some(_) => {}
        }
    }
}

fn canonical_cidr(text: &str) -> Option<(std::net::IpAddr, u8)> {
    format::cidr(text).filter(|(address, bits)| format::network(*address, *bits) == *address)
}
