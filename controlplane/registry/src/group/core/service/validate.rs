//! Validation of Services.

use std::collections::HashSet;
use std::net::IpAddr;

use serde_json::Value;

use super::{has_address, is_external};
use crate::check;
use crate::error::Errors;
use crate::field::{at, int, items, set, text};
use crate::metadata::format;
use crate::path::Path;

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// Validates a Service.
pub(super) fn object(service: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = service.get("spec").unwrap_or(&Value::Null);
    let kind = text(spec, &["type"]);
    let headless = text(spec, &["clusterIP"]) == "None";
    check::required_one_of(spec, "type", TYPES, &path, errors);
    check::one_of(spec, "sessionAffinity", &["ClientIP", "None"], &path, errors);
    if kind == "ExternalName" {
        external_name(spec, &path, errors);
    } else if items(spec, &["ports"]).is_empty() && !headless {
        errors.required(&path.field("ports"), "");
    }
    ports(spec, kind, &path.field("ports"), errors);
    crate::metadata::labels(spec.get("selector"), &path.field("selector"), errors);
    addresses(spec, kind, headless, &path, errors);
    policies(spec, kind, &path, errors);
    balancer(spec, kind, &path, errors);
}

fn external_name(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let name = text(spec, &["externalName"]).trim_end_matches('.');
    if name.is_empty() {
        errors.required(&path.field("externalName"), "");
    } else {
        check::subdomain(name, &path.field("externalName"), errors);
    }
    for name in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if set(spec, &[name]) {
            errors.forbidden(&path.field(name), "may not be set for ExternalName services");
        }
    }
}

fn ports(spec: &Value, kind: &str, list: &Path<'_>, errors: &mut Errors) {
    let ports = items(spec, &["ports"]);
    let (mut names, mut numbers, mut node_ports) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (i, port) in ports.iter().enumerate() {
        let path = list.index(i);
        let name = text(port, &["name"]);
        if name.is_empty() {
            if ports.len() > 1 {
                errors.required(&path.field("name"), "");
            }
        } else {
            check::dns_label(name, &path.field("name"), errors);
            if !names.insert(name) {
                errors.duplicate(&path.field("name"), name);
            }
        }
        let number = int(port, &["port"]).unwrap_or(0);
        check::port_number(number, &path.field("port"), errors);
        check::required_one_of(port, "protocol", &["SCTP", "TCP", "UDP"], &path, errors);
        check::port_or_name(port.get("targetPort"), &path.field("targetPort"), errors);
        if at(port, &["appProtocol"]).is_some() {
            check::qualified_name(text(port, &["appProtocol"]), &path.field("appProtocol"), errors);
        }
        if kind == "ClusterIP" && int(port, &["nodePort"]).unwrap_or(0) != 0 {
            errors.forbidden(&path.field("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
        let node_port = int(port, &["nodePort"]).filter(|n| *n != 0);
        if let Some(node) = node_port.filter(|n| !node_ports.insert((*n, text(port, &["protocol"])))) {
            errors.invalid(&path.field("nodePort"), node, "provided port is already allocated");
        }
        if !numbers.insert((number, text(port, &["protocol"]))) && number != 0 {
            errors.duplicate(&path, port.clone());
        }
    }
}

fn addresses(spec: &Value, kind: &str, headless: bool, path: &Path<'_>, errors: &mut Errors) {
    let list = path.field("clusterIPs");
    if headless && is_external(kind) {
        errors.invalid(&list.index(0), "None", format!("may not be set to 'None' for {kind} services"));
    }
    let families = items(spec, &["ipFamilies"]);
    cardinality(spec, kind, &list, errors);
    for (i, address) in items(spec, &["clusterIPs"]).iter().filter_map(Value::as_str).enumerate() {
        if address == "None" || !has_address(kind) {
            continue;
        }
        match format::ip(address) {
            None => errors.invalid(&list.index(i), address, IP),
            Some(ip) => {
                let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
                if let Some(wanted) = families.get(i).and_then(Value::as_str).filter(|f| *f != family) {
                    let detail = format!("expected an {wanted} value as indicated by `ipFamilies[{i}]`");
                    errors.invalid(&list.index(i), address, detail);
                }
            }
        }
    }
    let places = path.field("ipFamilies");
    for (i, family) in families.iter().filter_map(Value::as_str).enumerate() {
        if !matches!(family, "IPv4" | "IPv6") {
            errors.not_supported(&places.index(i), family, &["IPv4", "IPv6"]);
        } else if families[..i].iter().any(|f| f == family) {
            errors.duplicate(&places.index(i), family);
        }
    }
    check::one_of(
        spec,
        "ipFamilyPolicy",
        &["SingleStack", "PreferDualStack", "RequireDualStack"],
        path,
        errors,
    );
    let external = path.field("externalIPs");
    for (i, address) in items(spec, &["externalIPs"]).iter().filter_map(Value::as_str).enumerate() {
        match format::ip(address) {
            None => errors.invalid(&external.index(i), address, IP),
            Some(ip) => not_special(ip, address, &external.index(i), errors),
        }
    }
}

/// `None` alone, or an address for each of at most two families.
fn cardinality(spec: &Value, kind: &str, list: &Path<'_>, errors: &mut Errors) {
    let all = items(spec, &["clusterIPs"]);
    if !has_address(kind) || all.len() < 2 {
        return;
    }
    let parsed: Vec<_> = all.iter().filter_map(|address| format::ip(address.as_str()?)).collect();
    if all[0] == "None" {
        errors.invalid(list, all.to_vec(), "'None' must be the first and only value");
    } else if all.len() > 2 {
        errors.invalid(list, all.to_vec(), "may only hold up to 2 values");
    } else if parsed.len() == 2 && parsed[0].is_ipv4() == parsed[1].is_ipv4() {
        errors.invalid(list, all.to_vec(), "may specify no more than one IP for each IP family");
    }
}

fn not_special(ip: IpAddr, shown: &str, path: &Path<'_>, errors: &mut Errors) {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local {
        errors.invalid(path, shown, "may not be unspecified, loopback, link-local or multicast");
    }
}

fn policies(spec: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let place = path.field("externalTrafficPolicy");
    let policy = text(spec, &["externalTrafficPolicy"]);
    let reachable = is_external(kind) || kind == "ClusterIP" && set(spec, &["externalIPs"]);
    if !policy.is_empty() && !reachable {
        errors.invalid(&place, policy, "may only be set for externally-accessible services");
    } else if reachable {
        check::required_one_of(spec, "externalTrafficPolicy", &["Cluster", "Local"], path, errors);
    }
    check::one_of(spec, "internalTrafficPolicy", &["Cluster", "Local"], path, errors);
    let distributions = ["PreferClose", "PreferSameNode", "PreferSameZone"];
    check::one_of(spec, "trafficDistribution", &distributions, path, errors);
    let config = path.field("sessionAffinityConfig");
    match text(spec, &["sessionAffinity"]) {
        "ClientIP" => {
            let seconds = int(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"]).unwrap_or(0);
            if !(1..=86400).contains(&seconds) {
                let client = config.field("clientIP");
                errors.invalid(
                    &client.field("timeoutSeconds"),
                    seconds,
                    "must be greater than 0 and less than 86400",
                );
            }
        }
        "None" if at(spec, &["sessionAffinityConfig"]).is_some() => {
            errors.forbidden(&config, "must not be set when session affinity is None");
        }
        _ => {}
    }
    if int(spec, &["healthCheckNodePort"]).unwrap_or(0) != 0 && !(kind == "LoadBalancer" && policy == "Local")
    {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid(&path.field("healthCheckNodePort"), spec["healthCheckNodePort"].clone(), detail);
    }
}

fn balancer(spec: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let ranges = path.field("loadBalancerSourceRanges");
    let list = items(spec, &["loadBalancerSourceRanges"]);
    if !list.is_empty() && kind != "LoadBalancer" {
        errors.forbidden(&ranges, "may only be used when `type` is 'LoadBalancer'");
    }
    for (i, block) in list.iter().filter_map(Value::as_str).enumerate() {
        if format::cidr(block.trim()).is_none() {
            errors.invalid(
                &ranges.index(i),
                block,
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            );
        }
    }
    if kind != "LoadBalancer" {
        for name in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if at(spec, &[name]).is_some() {
                errors.forbidden(&path.field(name), "may only be used when `type` is 'LoadBalancer'");
            }
        }
    }
    let class = text(spec, &["loadBalancerClass"]);
    if kind == "LoadBalancer" && !class.is_empty() {
        check::qualified_name(class, &path.field("loadBalancerClass"), errors);
    }
}
