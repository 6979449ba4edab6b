//! EndpointSlices.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::check;
use crate::error::Errors;
use crate::field::{at, fill, fill_empty, int, items, items_mut, text};
use crate::metadata::format;
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;

pub(crate) static STRATEGY: Strategy = Strategy {
    generation: true,
    default: |slice| {
        for port in items_mut(slice, &["ports"]) {
            fill(port, "name", "");
            fill_empty(port, "protocol", "TCP");
        }
        for endpoint in items_mut(slice, &["endpoints"]) {
            fill(endpoint, "conditions", Map::new());
        }
        for name in ["endpoints", "ports"] {
            fill(slice, name, Value::Null);
        }
    },
    prepare_create: |slice| {
        for endpoint in items_mut(slice, &["endpoints"]) {
            crate::field::remove(endpoint, "deprecatedTopology");
        }
    },
    validate,
    validate_change: |new, old, errors| check::immutable(new, old, &["addressType"], &Path::ROOT, errors),
    row: cells,
    ..Strategy::BASE
};

fn validate(slice: &Value, errors: &mut Errors) {
    let kind = text(slice, &["addressType"]);
    check::required_one_of(slice, "addressType", &["FQDN", "IPv4", "IPv6"], &Path::ROOT, errors);
    let list = Path::new("endpoints");
    let endpoints = items(slice, &["endpoints"]);
    if endpoints.len() > MAX_ENDPOINTS {
        errors.too_many(&list, endpoints.len(), MAX_ENDPOINTS);
        return;
    }
    for (i, one) in endpoints.iter().enumerate() {
        endpoint(one, kind, &list.index(i), errors);
    }
    ports(items(slice, &["ports"]), errors);
}

fn endpoint(endpoint: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let list = path.field("addresses");
    let addresses = items(endpoint, &["addresses"]);
    if addresses.is_empty() {
        errors.required(&list, "must contain at least 1 address");
    } else if addresses.len() > MAX_ADDRESSES {
        errors.too_many(&list, addresses.len(), MAX_ADDRESSES);
    }
    for (i, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
        let place = list.index(i);
        match (kind, format::ip(address)) {
            ("FQDN", _) => check::subdomain(address, &place, errors),
            ("IPv4" | "IPv6", None) => {
                errors.invalid(
                    &place,
                    address,
                    "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                );
            }
            ("IPv4" | "IPv6", Some(ip)) if ip.is_ipv4() != (kind == "IPv4") => {
                errors.invalid(&list, address, format!("must be an {kind} address"));
            }
            ("IPv4" | "IPv6", Some(_)) => endpoint_ip(address, &place, errors),
            _ => {}
        }
    }
    if let Some(hostname) = at(endpoint, &["hostname"]).and_then(Value::as_str) {
        check::dns_label(hostname, &path.field("hostname"), errors);
    }
    if let Some(node) = at(endpoint, &["nodeName"]).and_then(Value::as_str) {
        check::subdomain(node, &path.field("nodeName"), errors);
    }
    let hints = path.field("hints");
    for (name, key) in [("forZones", "name"), ("forNodes", "name")] {
        let list = hints.field(name);
        for (i, hint) in items(endpoint, &["hints", name]).iter().enumerate() {
            let place = list.index(i);
            if name == "forZones" {
                if let Some(problem) =
                    format::label_value_problem(text(hint, &[key])).or((!text(hint, &[key])
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.'))
                    .then_some("must be a lowercase zone name"))
                {
                    errors.invalid(&place.field(key), text(hint, &[key]), problem);
                }
            } else {
                check::subdomain(text(hint, &[key]), &place.field(key), errors);
            }
        }
    }
}

/// Addresses that belong to nobody else's traffic: no loopback, link-local, multicast or unspecified ones.
pub(crate) fn endpoint_ip(text: &str, path: &Path<'_>, errors: &mut Errors) {
    let Some(ip) = format::ip(text) else {
        errors.invalid(path, text, "must be a valid IP address");
        return;
    };
    let ip = ip.to_canonical();
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let problem = if ip.is_unspecified() {
        "may not be unspecified (0.0.0.0 or ::)"
    } else if ip.is_loopback() {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)"
    } else if link_local {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
    } else if ip.is_multicast() {
        "may not be in the multicast range (224.0.0.0/4, ff00::/8)"
    } else {
        return;
    };
    errors.invalid(path, text, problem);
}

fn ports(ports: &[Value], errors: &mut Errors) {
    let list = Path::new("ports");
    if ports.len() > MAX_PORTS {
        errors.too_many(&list, ports.len(), MAX_PORTS);
        return;
    }
    for (i, port) in ports.iter().enumerate() {
        let path = list.index(i);
        let name = text(port, &["name"]);
        if !name.is_empty() {
            check::dns_label(name, &path.field("name"), errors);
        }
        if ports[..i].iter().any(|p| text(p, &["name"]) == name) {
            errors.duplicate(&path.field("name"), name);
        }
        check::required_one_of(port, "protocol", &["SCTP", "TCP", "UDP"], &path, errors);
        if let Some(protocol) = at(port, &["appProtocol"]).and_then(Value::as_str) {
            check::qualified_name(protocol, &path.field("appProtocol"), errors);
        }
    }
}

fn cells(slice: &Value, now: Timestamp) -> Vec<Value> {
    let port = |p: &Value| match int(p, &["port"]) {
        Some(number) => number.to_string(),
        None => "*".to_owned(),
    };
    let ports: Vec<String> = items(slice, &["ports"]).iter().map(port).collect();
    let addresses: Vec<String> = items(slice, &["endpoints"])
        .iter()
        .flat_map(|e| items(e, &["addresses"]))
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    vec![
        row::name(slice),
        text(slice, &["addressType"]).into(),
        first_few(&ports, "<unset>"),
        first_few(&addresses, "<unset>"),
        row::age(slice, now),
    ]
}

fn first_few(all: &[String], none: &str) -> Value {
    const SHOWN: usize = 3;
    match all.len() {
        0 => none.into(),
        n if n <= SHOWN => all.join(",").into(),
        n => format!("{} + {} more...", all[..SHOWN].join(","), n - SHOWN).into(),
    }
}
