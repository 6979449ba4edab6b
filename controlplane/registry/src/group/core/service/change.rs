//! Changes of Services: allocated values survive an update that leaves them out, and go when the type goes.

use serde_json::{Value, json};

use super::{has_address, is_external};
use crate::error::Errors;
use crate::field::{at, copy, int, items, items_mut, object, remove, set, text};
use crate::path::Path;

/// Carries allocated values over and drops those that the new type does not have.
pub(super) fn prepare(new: &mut Value, old: &Value) {
    let before = old.get("spec").unwrap_or(&Value::Null);
    let spec = object(new, "spec");
    normalize_addresses(spec, before);
    let (kind, old_kind) = (text(spec, &["type"]).to_owned(), text(before, &["type"]).to_owned());
    if has_address(&kind) && has_address(&old_kind) {
        for name in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if !set(spec, &[name]) {
                copy(name, before, spec);
            }
        }
    }
    if is_external(&kind) && is_external(&old_kind) {
        keep_node_ports(spec, before);
    }
    drop_foreign(spec, before, &kind, &old_kind);
}

/// `clusterIP` and `clusterIPs[0]` are the same thing: the one that changed wins.
fn normalize_addresses(spec: &mut Value, before: &Value) {
    let (one, old_one) = (text(spec, &["clusterIP"]).to_owned(), text(before, &["clusterIP"]));
    let same_list = spec.get("clusterIPs") == before.get("clusterIPs");
    if one.is_empty() && !old_one.is_empty() && same_list {
        remove(spec, "clusterIPs");
        remove(spec, "clusterIP");
    } else if one != old_one && (same_list || !set(spec, &["clusterIPs"])) && !one.is_empty() {
        spec["clusterIPs"] = json!([one]);
    } else if one == old_one && !same_list {
        match items(spec, &["clusterIPs"]).first().cloned() {
            Some(first) => spec["clusterIP"] = first,
            None => {
                remove(spec, "clusterIP");
            }
        }
    }
}

fn keep_node_ports(spec: &mut Value, before: &Value) {
    let old_ports = items(before, &["ports"]);
    let mut used: Vec<i64> = items(spec, &["ports"]).iter().filter_map(|p| int(p, &["nodePort"])).collect();
    for port in items_mut(spec, &["ports"]) {
        if int(port, &["nodePort"]).unwrap_or(0) != 0 {
            continue;
        }
        let same = |o: &&Value| {
            text(o, &["protocol"]) == text(port, &["protocol"]) && o.get("port") == port.get("port")
        };
        if let Some(number) =
            old_ports.iter().find(same).and_then(|o| int(o, &["nodePort"])).filter(|n| *n != 0)
            && !used.contains(&number)
        {
            used.push(number);
            port["nodePort"] = number.into();
        }
    }
    if needs_health_check(spec) && needs_health_check(before) && !set(spec, &["healthCheckNodePort"]) {
        copy("healthCheckNodePort", before, spec);
    }
}

fn needs_health_check(spec: &Value) -> bool {
    text(spec, &["type"]) == "LoadBalancer" && text(spec, &["externalTrafficPolicy"]) == "Local"
}

/// Drops values that belong to the old type, unless the update sets them anew.
fn drop_foreign(spec: &mut Value, before: &Value, kind: &str, old_kind: &str) {
    let drop = |spec: &mut Value, name: &str| {
        if spec.get(name) == before.get(name) {
            remove(spec, name);
        }
    };
    if !has_address(kind) && has_address(old_kind) {
        for name in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            drop(spec, name);
        }
    }
    if !is_external(kind) && is_external(old_kind) {
        let old_ports = items(before, &["ports"]);
        for port in items_mut(spec, &["ports"]) {
            let number = port.get("nodePort").cloned();
            if number.is_some() && old_ports.iter().any(|o| o.get("nodePort") == number.as_ref()) {
                remove(port, "nodePort");
            }
        }
        if !set(spec, &["externalIPs"]) {
            drop(spec, "externalTrafficPolicy");
        }
    }
    if !needs_health_check(spec) && needs_health_check(before) {
        drop(spec, "healthCheckNodePort");
    }
    if kind != "LoadBalancer" && old_kind == "LoadBalancer" {
        drop(spec, "allocateLoadBalancerNodePorts");
        drop(spec, "loadBalancerClass");
    }
}

/// What an update may not change.
pub(super) fn validate(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let (kind, old_kind) = (text(new, &["spec", "type"]), text(old, &["spec", "type"]));
    if has_address(kind) && has_address(old_kind) {
        addresses(new, old, &path, errors);
        families(new, old, &path, errors);
    }
    let class = |v: &Value| at(v, &["spec", "loadBalancerClass"]).cloned();
    if kind == "LoadBalancer" && old_kind == "LoadBalancer" && class(new) != class(old) {
        let shown = class(new).unwrap_or_default();
        errors.invalid(&path.field("loadBalancerClass"), shown, "may not change once set");
    } else if kind != "LoadBalancer" && class(new).is_some() {
        errors.forbidden(&path.field("loadBalancerClass"), "may only be used when `type` is 'LoadBalancer'");
    }
}

/// An address stays; a second one may come, and goes with the policy `SingleStack` only.
fn addresses(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.field("clusterIPs");
    let (now, before) = (items(new, &["spec", "clusterIPs"]), items(old, &["spec", "clusterIPs"]));
    for (i, address) in before.iter().enumerate().take(now.len().max(1)) {
        if now.get(i) != Some(address) {
            errors.invalid(&list.index(i), now.to_vec(), "may not change once set");
        }
    }
    released(new, (now.len(), before.len()), "clusterIP", path, errors);
}

/// The same for families, except where they mean nothing: without address and selector.
fn families(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    let is_free = |service: &Value| {
        text(service, &["spec", "clusterIP"]) == "None" && !set(service, &["spec", "selector"])
    };
    let list = path.field("ipFamilies");
    let (now, before) = (items(new, &["spec", "ipFamilies"]), items(old, &["spec", "ipFamilies"]));
    // Families that contradict the addresses are named as that already.
    let addresses =
        items(new, &["spec", "clusterIPs"]).iter().filter_map(Value::as_str).filter(|a| *a != "None");
    let contradicts = |(address, family): (&str, &Value)| address.contains(':') != (family == "IPv6");
    if is_free(new) && is_free(old) || addresses.zip(now).any(contradicts) {
        return;
    }
    for (i, family) in before.iter().enumerate().take(now.len().max(1)) {
        if now.get(i) != Some(family) {
            errors.invalid(&list.index(i), now.to_vec(), "may not change once set");
        }
    }
    released(new, (now.len(), before.len()), "ipFamily", path, errors);
}

fn released(new: &Value, (now, before): (usize, usize), what: &str, path: &Path<'_>, errors: &mut Errors) {
    let policy = text(new, &["spec", "ipFamilyPolicy"]);
    if now == 1 && before == 2 && policy != "SingleStack" {
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        errors.invalid(&path.field("ipFamilyPolicy"), policy, detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node_port() -> Value {
        json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}})
    }

    #[test]
    fn keeps_allocated_values_that_an_update_leaves_out() {
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}});
        prepare(&mut new, &node_port());
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.96.0.5"]));
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30001);
    }

    #[test]
    fn drops_what_the_new_type_does_not_have() {
        let mut new = node_port();
        new["spec"]["type"] = "ClusterIP".into();
        prepare(&mut new, &node_port());
        assert!(new["spec"]["ports"][0].get("nodePort").is_none());
        new["spec"]["type"] = "ExternalName".into();
        prepare(&mut new, &node_port());
        assert!(new["spec"].get("clusterIP").is_none());
    }

    #[test]
    fn the_second_address_comes_and_goes_and_the_first_one_stays() {
        let service = |addresses: Value, families: Value, policy: &str| {
            json!({"spec": {"type": "ClusterIP", "clusterIP": addresses[0], "clusterIPs": addresses,
                "ipFamilies": families, "ipFamilyPolicy": policy}})
        };
        let one = service(json!(["10.96.0.5"]), json!(["IPv4"]), "SingleStack");
        let two = service(json!(["10.96.0.5", "fd00::5"]), json!(["IPv4", "IPv6"]), "RequireDualStack");
        let fields = |new: &Value, old: &Value| {
            let mut errors = Errors::new();
            validate(new, old, &mut errors);
            errors.into_vec().into_iter().map(|error| error.field).collect::<Vec<_>>()
        };
        assert!(fields(&two, &one).is_empty() && fields(&one, &two).is_empty());
        let mut kept = one.clone();
        kept["spec"]["ipFamilyPolicy"] = "PreferDualStack".into();
        assert_eq!(fields(&kept, &two), ["spec.ipFamilyPolicy", "spec.ipFamilyPolicy"]);
        let moved = service(json!(["10.96.0.5", "fd00::6"]), json!(["IPv4", "IPv6"]), "RequireDualStack");
        assert_eq!(fields(&moved, &two), ["spec.clusterIPs[1]"]);
    }
}
