//! Endpoints: the old form of EndpointSlices.

use serde_json::Value;

use crate::check;
use crate::error::Errors;
use crate::field::{fill_empty, int, items, items_mut, text};
use crate::group::networking::endpoint_slice::endpoint_ip;
use crate::metadata::format;
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

const SHOWN: usize = 3;

pub(crate) static STRATEGY: Strategy = Strategy {
    default: |endpoints| {
        for subset in items_mut(endpoints, &["subsets"]) {
            for port in items_mut(subset, &["ports"]) {
                fill_empty(port, "protocol", "TCP");
            }
        }
    },
    validate,
    warnings: |_, out| {
        out.push("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned());
    },
    row: |endpoints, now| {
        vec![row::name(endpoints), row::or_none(&shown(endpoints)), row::age(endpoints, now)]
    },
    ..Strategy::BASE
};

fn validate(endpoints: &Value, errors: &mut Errors) {
    let list = Path::new("subsets");
    for (i, subset) in items(endpoints, &["subsets"]).iter().enumerate() {
        let path = list.index(i);
        let (ready, waiting) = (items(subset, &["addresses"]), items(subset, &["notReadyAddresses"]));
        if ready.is_empty() && waiting.is_empty() {
            errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for (name, addresses) in [("addresses", ready), ("notReadyAddresses", waiting)] {
            let list = path.field(name);
            for (i, one) in addresses.iter().enumerate() {
                address(one, &list.index(i), errors);
            }
        }
        ports(items(subset, &["ports"]), &path.field("ports"), errors);
    }
}

fn address(address: &Value, path: &Path<'_>, errors: &mut Errors) {
    let ip = text(address, &["ip"]);
    if format::ip(ip).is_none() {
        errors.invalid(
            &path.field("ip"),
            ip,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        );
    }
    let hostname = text(address, &["hostname"]);
    if !hostname.is_empty() {
        check::dns_label(hostname, &path.field("hostname"), errors);
    }
    let node = text(address, &["nodeName"]);
    if !node.is_empty() {
        check::subdomain(node, &path.field("nodeName"), errors);
    }
    endpoint_ip(ip, &path.field("ip"), errors);
}

fn ports(ports: &[Value], path: &Path<'_>, errors: &mut Errors) {
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = text(port, &["name"]);
        if name.is_empty() && ports.len() > 1 {
            errors.required(&path.field("name"), "");
        } else if !name.is_empty() {
            check::dns_label(name, &path.field("name"), errors);
        }
        check::port_number(int(port, &["port"]).unwrap_or(0), &path.field("port"), errors);
        check::required_one_of(port, "protocol", &["SCTP", "TCP", "UDP"], &path, errors);
    }
}

fn shown(endpoints: &Value) -> String {
    let mut all = Vec::new();
    for subset in items(endpoints, &["subsets"]) {
        let ips = items(subset, &["addresses"]).iter().map(|a| text(a, &["ip"]));
        let ports = items(subset, &["ports"]);
        for ip in ips {
            if ports.is_empty() {
                all.push(ip.to_owned());
            }
            for port in ports {
                let number = int(port, &["port"]).unwrap_or(0);
                all.push(if ip.contains(':') {
                    format!("[{ip}]:{number}")
                } else {
                    format!("{ip}:{number}")
                });
            }
        }
    }
    let more = all.len().saturating_sub(SHOWN);
    let text = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(",");
    if more > 0 { format!("{text} + {more} more...") } else { text }
}
