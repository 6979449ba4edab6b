//! What a Service's spec needs and holds, and how a changed spec relates to the one before. Pure functions over JSON.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::meta;

fn kind(object: &Value) -> &str {
    object["spec"]["type"].as_str().unwrap_or("ClusterIP")
}

/// Whether it has a cluster address (or says `None`).
pub fn needs_address(object: &Value) -> bool {
    matches!(kind(object), "ClusterIP" | "NodePort" | "LoadBalancer" | "")
}

/// Whether its ports have node ports.
pub fn needs_node_ports(object: &Value) -> bool {
    match kind(object) {
        "NodePort" => true,
        "LoadBalancer" => object["spec"]["allocateLoadBalancerNodePorts"].as_bool().unwrap_or(true),
        _ => false,
    }
}

/// Whether it has a port for external health checks.
pub fn needs_health_port(object: &Value) -> bool {
    kind(object) == "LoadBalancer" && object["spec"]["externalTrafficPolicy"] == "Local"
}

/// Whether it can have node ports at all.
fn may_have_node_ports(object: &Value) -> bool {
    matches!(kind(object), "NodePort" | "LoadBalancer")
}

/// Cluster addresses it holds, each in its one spelling.
pub fn addresses(object: &Value) -> Vec<String> {
    if !needs_address(object) {
        return Vec::new();
    }
    let list = object["spec"]["clusterIPs"].as_array().into_iter().flatten();
    list.filter_map(Value::as_str).filter(|a| !a.is_empty() && *a != "None").map(canonical).collect()
}

/// The one spelling of an address; what is no address stays as it is.
pub fn canonical(address: &str) -> String {
    address.parse::<IpAddr>().map_or_else(|_no_address| address.to_owned(), |parsed| parsed.to_string())
}

/// Node ports it holds, the health check port included.
pub fn node_ports(object: &Value) -> Vec<u16> {
    if !may_have_node_ports(object) {
        return Vec::new();
    }
    let ports = object["spec"]["ports"].as_array().into_iter().flatten().map(|p| &p["nodePort"]);
    ports
        .chain(std::iter::once(&object["spec"]["healthCheckNodePort"]))
        .filter_map(|p| u16::try_from(p.as_u64()?).ok())
        .filter(|p| *p != 0)
        .collect()
}

/// Makes `clusterIP` and `clusterIPs` agree; the singular wins where the client changed only that.
pub fn normalize_addresses(new: &mut Value, old: Option<&Value>) {
    let text = |o: &Value| o["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    let single = text(new);
    let list_empty = new["spec"]["clusterIPs"].as_array().is_none_or(Vec::is_empty);
    let Some(old) = old else {
        if list_empty && !single.is_empty() {
            new["spec"]["clusterIPs"] = json!([single]);
        } else if single.is_empty() && !list_empty {
            // Validation names the mismatch, unless the list alone was given.
            new["spec"]["clusterIP"] = new["spec"]["clusterIPs"][0].clone();
        }
        return;
    };
    let list_same = new["spec"]["clusterIPs"] == old["spec"]["clusterIPs"];
    if single != text(old) && (list_same || list_empty) {
        if single.is_empty() {
            remove(new, "clusterIPs");
        } else {
            new["spec"]["clusterIPs"] = json!([single]);
        }
    }
}

/// Takes over from the old spec the allocated values that the new one left out.
pub fn keep_allocations(new: &mut Value, old: &Value) {
    if needs_address(new) && needs_address(old) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if is_empty(&new["spec"][field]) && !is_empty(&old["spec"][field]) {
                new["spec"][field] = old["spec"][field].clone();
            }
        }
    }
    if needs_node_ports(new) && needs_node_ports(old) {
        keep_node_ports(new, old);
    }
    if needs_health_port(new) && needs_health_port(old) && is_empty(&new["spec"]["healthCheckNodePort"]) {
        new["spec"]["healthCheckNodePort"] = old["spec"]["healthCheckNodePort"].clone();
    }
}

fn keep_node_ports(new: &mut Value, old: &Value) {
    let used: Vec<u64> = ports(new).filter_map(|p| p["nodePort"].as_u64()).filter(|p| *p != 0).collect();
    for port in meta::list_mut(new, &["spec", "ports"]) {
        if !is_empty(&port["nodePort"]) {
            continue;
        }
        let same = |o: &&Value| o["port"] == port["port"] && o["protocol"] == port["protocol"];
        let before = ports(old).find(same).and_then(|o| o["nodePort"].as_u64()).filter(|p| *p != 0);
        if let Some(before) = before.filter(|p| !used.contains(p)) {
            port["nodePort"] = before.into();
        }
    }
}

fn ports(object: &Value) -> impl Iterator<Item = &Value> {
    object["spec"]["ports"].as_array().into_iter().flatten()
}

/// Clears what the old type needed, the new one does not, and the client did not touch.
pub fn drop_unneeded(new: &mut Value, old: &Value) {
    let untouched =
        |new: &Value, field: &str| new["spec"][field] == old["spec"][field] || is_empty(&new["spec"][field]);
    if needs_address(old) && !needs_address(new) && untouched(new, "clusterIP") {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            remove(new, field);
        }
        if untouched(new, "internalTrafficPolicy") {
            remove(new, "internalTrafficPolicy");
        }
    }
    let listed = |o: &Value| ports(o).map(|p| p["nodePort"].as_u64().unwrap_or(0)).collect::<Vec<_>>();
    if needs_node_ports(old) && !may_have_node_ports(new) && listed(new) == listed(old) {
        for port in meta::list_mut(new, &["spec", "ports"]) {
            if let Some(port) = port.as_object_mut() {
                port.shift_remove("nodePort");
            }
        }
    }
    if needs_health_port(old) && !needs_health_port(new) && untouched(new, "healthCheckNodePort") {
        remove(new, "healthCheckNodePort");
    }
    if kind(old) == "LoadBalancer" && kind(new) != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if untouched(new, field) {
                remove(new, field);
            }
        }
    }
    if may_have_node_ports(old) && !may_have_node_ports(new) && untouched(new, "externalTrafficPolicy") {
        remove(new, "externalTrafficPolicy");
    }
}

fn remove(object: &mut Value, field: &str) {
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        spec.shift_remove(field);
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_u64() == Some(0),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_without_allocated_values_keeps_them() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}, {"port": 80, "protocol": "UDP", "nodePort": 30002}]}});
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "UDP"}, {"port": 81, "protocol": "TCP"}]}});
        normalize_addresses(&mut new, Some(&old));
        keep_allocations(&mut new, &old);
        assert_eq!(new["spec"]["clusterIP"], "10.0.0.1");
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30002);
        assert!(is_empty(&new["spec"]["ports"][1]["nodePort"]));
    }

    #[test]
    fn becoming_internal_drops_node_ports() {
        let old = json!({"spec": {"type": "NodePort", "externalTrafficPolicy": "Cluster", "ports": [{"port": 80, "nodePort": 30001}]}});
        let mut new = old.clone();
        new["spec"]["type"] = "ClusterIP".into();
        drop_unneeded(&mut new, &old);
        assert_eq!(new["spec"], json!({"type": "ClusterIP", "ports": [{"port": 80}]}));
    }

    #[test]
    fn becoming_a_name_drops_the_address() {
        let old = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"]}});
        let mut new = json!({"spec": {"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"]}});
        drop_unneeded(&mut new, &old);
        assert_eq!(new["spec"], json!({"type": "ExternalName", "externalName": "a.b"}));
    }
}
