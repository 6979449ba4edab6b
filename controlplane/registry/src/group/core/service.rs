//! Services. Addresses, families and node ports are settled by the API server, which knows the cluster; here are their
//! rules.

use serde_json::{Value, json};

use crate::field::{at, fill, fill_empty, flag, items, items_mut, object, set, text};
use crate::metadata::NameRule;
use crate::strategy::Strategy;

mod change;
mod row;
mod validate;

pub(crate) static STRATEGY: Strategy = Strategy {
    name: NameRule::Label1035,
    status: true,
    selectable: &["spec.clusterIP", "spec.type"],
    default,
    prepare_create: |service| service["status"] = json!({"loadBalancer": {}}),
    prepare_update: change::prepare,
    validate: validate::object,
    validate_change: change::validate,
    warnings,
    fields: |service, sink| {
        sink("spec.clusterIP", text(service, &["spec", "clusterIP"]).to_owned());
        sink("spec.type", text(service, &["spec", "type"]).to_owned());
    },
    row: row::cells,
    ..Strategy::BASE
};

/// Whether the type reaches from outside.
fn is_external(kind: &str) -> bool {
    matches!(kind, "NodePort" | "LoadBalancer")
}

/// Whether the type has an address in the cluster.
fn has_address(kind: &str) -> bool {
    matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn default(service: &mut Value) {
    let spec = object(service, "spec");
    fill_empty(spec, "sessionAffinity", "None");
    fill_empty(spec, "type", "ClusterIP");
    if text(spec, &["sessionAffinity"]) == "ClientIP" {
        fill(object(object(spec, "sessionAffinityConfig"), "clientIP"), "timeoutSeconds", 10800);
    }
    for port in items_mut(spec, &["ports"]) {
        fill_empty(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or_default();
        fill_empty(port, "targetPort", number);
    }
    let kind = text(spec, &["type"]).to_owned();
    if is_external(&kind) || kind == "ClusterIP" && set(spec, &["externalIPs"]) {
        fill_empty(spec, "externalTrafficPolicy", "Cluster");
    }
    if has_address(&kind) {
        fill_empty(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    }
    let first = text(spec, &["clusterIP"]).to_owned();
    if !first.is_empty() && !set(spec, &["clusterIPs"]) {
        spec["clusterIPs"] = json!([first]);
    } else if first.is_empty()
        && let Some(one) = items(spec, &["clusterIPs"]).first().cloned()
    {
        spec["clusterIP"] = one;
    }
    if let Some(balancer) = at(service, &["status", "loadBalancer"]).cloned() {
        service["status"]["loadBalancer"] = balancer;
    }
}

fn warnings(service: &Value, out: &mut Vec<String>) {
    let spec = &service["spec"];
    if set(spec, &["externalIPs"]) {
        out.push(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned(),
        );
    }
    if set(spec, &["externalName"]) && text(spec, &["type"]) != "ExternalName" {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if text(spec, &["trafficDistribution"]) == "PreferClose" {
        out.push(
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned(),
        );
    }
    if text(spec, &["clusterIP"]) == "None"
        && flag(spec, &["publishNotReadyAddresses"])
        && is_external(text(spec, &["type"]))
    {
        out.push("spec.publishNotReadyAddresses is ignored for this type".to_owned());
    }
}
