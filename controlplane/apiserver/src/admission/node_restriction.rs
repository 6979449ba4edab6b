//! NodeRestriction: a kubelet writes its own Node, Lease and CSINode, and the pods bound to it; it cannot relabel or
//! retaint itself into attracting others, and gets tokens only for pods it runs.

use std::net::IpAddr;

use serde_json::Value;
use skep_model::IpCidr;

use crate::admission::{Operation, Request};
use crate::meta;
use crate::state::State;
use crate::status::ApiResult;

/// Labels under these domains a kubelet may set on itself.
const OWN_LABELS: [&str; 9] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// Judges a write of a kubelet; others pass.
pub fn validate(
    state: &State,
    request: &Request<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> ApiResult<()> {
    let Some(node) = request.user.node() else { return Ok(()) };
    let target = request.target;
    let refuse = |why: &str| Err(target.forbidden(&format!("node {node:?} {why}")));
    if target.is("", "nodes") {
        own_node(request, node, object, old)?;
        return own_addresses(state, request, node, object, old);
    }
    if target.is("coordination.k8s.io", "leases") {
        let name = object.or(old).map(|o| meta::text(o, "name")).unwrap_or_default();
        if target.namespace.as_deref() != Some("kube-node-lease") || name != node {
            return refuse("can only access its own lease in kube-node-lease");
        }
    }
    if target.is("storage.k8s.io", "csinodes")
        && object.or(old).is_some_and(|o| meta::text(o, "name") != node)
    {
        return refuse("can only access its own CSINode");
    }
    if target.is("", "pods") {
        return own_pod(state, request, node, object, old);
    }
    Ok(())
}

fn own_pod(
    _state: &State,
    request: &Request<'_>,
    node: &str,
    object: Option<&Value>,
    old: Option<&Value>,
) -> ApiResult<()> {
    let refuse = |why: &str| Err(request.target.forbidden(&format!("node {node:?} {why}")));
    let bound = |pod: &Value| pod["spec"]["nodeName"].as_str() == Some(node);
    match request.operation {
        Operation::Create if request.target.subresource.is_none() => {
            let Some(pod) = object else { return Ok(()) };
            if pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_none() {
                return refuse("can only create mirror pods");
            }
            if !bound(pod) {
                return refuse("can only create pods with spec.nodeName set to itself");
            }
            Ok(())
        }
        _ if old.is_some_and(|pod| !bound(pod)) => {
            refuse("can only change pods with spec.nodeName set to itself")
        }
        Operation::Update => match (object, old) {
            (Some(new), Some(old)) if new["metadata"]["labels"] != old["metadata"]["labels"] => {
                refuse("cannot update labels through pod status")
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn own_node(request: &Request<'_>, node: &str, object: Option<&Value>, old: Option<&Value>) -> ApiResult<()> {
    let refuse = |why: String| Err(request.target.forbidden(&format!("node {node:?} {why}")));
    let name = object.or(old).map(|o| meta::text(o, "name")).unwrap_or_default();
    if name != node {
        return refuse(format!("is not allowed to modify node {name:?}"));
    }
    let Some(new) = object else { return Ok(()) };
    if let Some(old) = old {
        if new["spec"]["taints"] != old["spec"]["taints"] {
            return refuse("is not allowed to modify taints".to_owned());
        }
        if new["spec"]["configSource"] != old["spec"]["configSource"] {
            return refuse("is not allowed to update configSource".to_owned());
        }
    }
    if new["metadata"]["ownerReferences"].as_array().is_some_and(|o| !o.is_empty())
        && old.is_none_or(|old| old["metadata"]["ownerReferences"] != new["metadata"]["ownerReferences"])
    {
        return refuse("is not allowed to modify its ownerReferences".to_owned());
    }
    let changed: Vec<String> =
        changed_labels(new, old).into_iter().filter(|key| !allowed_label(key)).collect();
    if !changed.is_empty() {
        return refuse(format!("is not allowed to modify labels: {}", changed.join(", ")));
    }
    Ok(())
}

/// Other nodes' agents route by these addresses: a node takes none that is another's, be it of the node or of its pods.
fn own_addresses(
    state: &State,
    request: &Request<'_>,
    node: &str,
    object: Option<&Value>,
    old: Option<&Value>,
) -> ApiResult<()> {
    let held = old.map(addresses).unwrap_or_default();
    let news: Vec<IpAddr> =
        object.map(addresses).unwrap_or_default().into_iter().filter(|a| !held.contains(a)).collect();
    if news.is_empty() {
        return Ok(());
    }
    let nodes = state.store.values("", "nodes", None);
    match claimed(&news, node, &nodes) {
        None => Ok(()),
        Some((address, owner)) => Err(request.target.forbidden(&format!(
            "node {node:?} is not allowed to take address {address}: it belongs to node {owner:?}"
        ))),
    }
}

/// The first of some addresses that another node has, and that node's name.
fn claimed(addresses_wanted: &[IpAddr], node: &str, nodes: &[Value]) -> Option<(IpAddr, String)> {
    for other in nodes.iter().filter(|other| meta::text(other, "name") != node) {
        let taken = addresses(other);
        let ranges = pod_ranges(other);
        let hit = addresses_wanted
            .iter()
            .find(|address| taken.contains(address) || ranges.iter().any(|range| range.contains(**address)));
        if let Some(address) = hit {
            return Some((*address, meta::text(other, "name").to_owned()));
        }
    }
    None
}

/// Internal and external addresses of a Node; names are nobody's route.
fn addresses(node: &Value) -> Vec<IpAddr> {
    let listed = node["status"]["addresses"].as_array().into_iter().flatten();
    let typed = listed.filter(|a| matches!(a["type"].as_str(), Some("InternalIP" | "ExternalIP")));
    typed.filter_map(|a| a["address"].as_str()?.parse().ok()).collect()
}

fn pod_ranges(node: &Value) -> Vec<IpCidr> {
    let spec = &node["spec"];
    let listed = spec["podCIDRs"].as_array().into_iter().flatten().chain([&spec["podCIDR"]]);
    listed.filter_map(|range| range.as_str()?.parse().ok()).collect()
}

fn changed_labels(new: &Value, old: Option<&Value>) -> Vec<String> {
    let labels = |o: &Value| o["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    let (new, old) = (labels(new), old.map(labels).unwrap_or_default());
    let mut keys: Vec<String> = new.keys().chain(old.keys()).cloned().collect();
    keys.sort();
    keys.dedup();
    keys.retain(|key| new.get(key) != old.get(key));
    keys
}

/// Whether a kubelet may set this label on its node.
fn allowed_label(key: &str) -> bool {
    let domain = key.split_once('/').map(|(d, _)| d).unwrap_or_default();
    let under = |d: &str| domain == d || domain.ends_with(&format!(".{d}"));
    if under("node-restriction.kubernetes.io") {
        return false;
    }
    if !under("kubernetes.io") && !under("k8s.io") {
        return true;
    }
    OWN_LABELS.contains(&key) || under("kubelet.kubernetes.io") || under("node.kubernetes.io")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_takes_no_address_of_another_node_or_its_pods() {
        let node = |name: &str, ip: &str, range: &str| {
            serde_json::json!({
                "metadata": {"name": name}, "spec": {"podCIDR": range, "podCIDRs": [range]},
                "status": {"addresses": [
                    {"type": "Hostname", "address": name}, {"type": "InternalIP", "address": ip},
                ]},
            })
        };
        let nodes = [node("a", "10.0.0.1", "10.244.0.0/24"), node("b", "10.0.0.2", "10.244.1.0/24")];
        let owner = |address: &str| claimed(&[address.parse().unwrap()], "b", &nodes).map(|(_, owner)| owner);
        assert_eq!(owner("10.0.0.1"), Some("a".to_owned()));
        assert_eq!(owner("10.244.0.77"), Some("a".to_owned()));
        assert_eq!(owner("10.0.0.2"), None, "its own");
        assert_eq!(owner("10.244.1.1"), None, "its own pods'");
        assert_eq!(owner("10.0.0.3"), None);
    }

    #[test]
    fn a_kubelet_cannot_take_restricted_labels() {
        assert!(allowed_label("kubernetes.io/hostname"));
        assert!(allowed_label("example.com/rack"));
        assert!(allowed_label("node.kubernetes.io/instance-type"));
        assert!(!allowed_label("node-restriction.kubernetes.io/x"));
        assert!(!allowed_label("node-role.kubernetes.io/control-plane"));
    }
}
