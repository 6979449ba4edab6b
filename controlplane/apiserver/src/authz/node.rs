//! The node authorizer: a kubelet reads what the pods on its node need, and writes what reports on its node. Secrets,
//! config maps, claims and accounts only by name, and only when a pod bound to the node refers to them.

use serde_json::Value;

use crate::authz::Ask;
use crate::selector::FieldSelector;
use crate::state::State;

/// The authorizer's opinion.
pub enum Verdict {
    /// It may.
    Allowed,
    /// Not as a node; the reason may be empty.
    Refused(String),
}

const READ: [&str; 3] = ["get", "list", "watch"];

/// Judges a request of a node's kubelet.
pub fn authorize(state: &State, node: &str, ask: &Ask<'_>) -> Verdict {
    if ask.path.is_some() {
        return no("");
    }
    let reads = READ.contains(&ask.verb);
    match (ask.group, ask.resource) {
        ("", "secrets" | "configmaps" | "persistentvolumeclaims") => {
            let status = ask.resource == "persistentvolumeclaims" && ask.subresource == "status";
            let writes_status = status && matches!(ask.verb, "get" | "update" | "patch");
            related_to_pod(state, node, ask, writes_status || (reads && ask.subresource.is_empty()))
        }
        ("", "serviceaccounts") => {
            let token = ask.subresource == "token" && ask.verb == "create";
            related_to_pod(state, node, ask, token || (reads && ask.subresource.is_empty()))
        }
        ("", "persistentvolumes") => {
            when(reads && !ask.name.is_empty() && mounts_volume(state, node, ask.name))
        }
        ("", "nodes") => node_object(node, ask),
        ("", "pods") => pods(state, node, ask),
        ("", "services") | ("node.k8s.io", "runtimeclasses") | ("storage.k8s.io", "csidrivers") => {
            when(reads && ask.subresource.is_empty())
        }
        ("", "events") | ("events.k8s.io", "events") => {
            when(matches!(ask.verb, "create" | "update" | "patch"))
        }
        ("coordination.k8s.io", "leases") => own_name(ask, ask.namespace == "kube-node-lease", node),
        ("storage.k8s.io", "csinodes") => own_name(ask, true, node),
        ("storage.k8s.io", "volumeattachments") => {
            when(ask.verb == "get" && attached_here(state, node, ask.name))
        }
        ("certificates.k8s.io", "certificatesigningrequests") => {
            when(ask.subresource.is_empty() && (ask.verb == "create" || reads))
        }
        ("authentication.k8s.io", "tokenreviews")
        | ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews") => {
            when(ask.verb == "create")
        }
        _ => no(""),
    }
}

fn when(allowed: bool) -> Verdict {
    if allowed { Verdict::Allowed } else { no("") }
}

fn no(why: &str) -> Verdict {
    Verdict::Refused(why.to_owned())
}

fn own_name(ask: &Ask<'_>, in_scope: bool, node: &str) -> Verdict {
    let verb = matches!(ask.verb, "get" | "create" | "update" | "patch" | "delete");
    // The name of a create is in the body; NodeRestriction checks it.
    when(in_scope && verb && (ask.name == node || ask.verb == "create"))
}

fn node_object(node: &str, ask: &Ask<'_>) -> Verdict {
    let own = ask.name == node;
    match (ask.verb, ask.subresource) {
        ("create", "") => Verdict::Allowed,
        ("update" | "patch" | "get", "" | "status") if own => Verdict::Allowed,
        ("list" | "watch", "") if pins(ask, "metadata.name", node) => Verdict::Allowed,
        _ => no("node can only access its own node object"),
    }
}

fn pins(ask: &Ask<'_>, field: &str, value: &str) -> bool {
    let selector = ask.field_selector.and_then(|text| FieldSelector::parse(text).ok());
    (field == "metadata.name" && ask.name == value)
        || selector.is_some_and(|selector| selector.pinned(field) == Some(value))
}

fn pods(state: &State, node: &str, ask: &Ask<'_>) -> Verdict {
    match (ask.verb, ask.subresource) {
        ("list" | "watch", "") if pins(ask, "spec.nodeName", node) => Verdict::Allowed,
        ("list" | "watch", "") => no("can only list/watch pods with spec.nodeName field selector"),
        ("create", "") => Verdict::Allowed,
        ("get" | "delete", "") | ("get" | "update" | "patch", "status") | ("create", "eviction") => {
            let pod = state.store.find("", "pods", Some(ask.namespace), ask.name);
            // An absent pod tells a kubelet nothing but that it is gone.
            let here = pod.is_none_or(|pod| pod.attributes().field("spec.nodeName") == Some(node));
            if here { Verdict::Allowed } else { no("can only access pods bound to the node") }
        }
        _ => no(""),
    }
}

fn pods_of(state: &State, node: &str, namespace: Option<&str>) -> Vec<Value> {
    state
        .store
        .objects("", "pods", namespace)
        .into_iter()
        .filter(|pod| pod.attributes().field("spec.nodeName") == Some(node))
        .filter_map(|pod| crate::store::decode(&pod).ok())
        // A kubelet makes its own mirror pods, so what they name grants it nothing.
        .filter(|pod| pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_none())
        .collect()
}

fn related_to_pod(state: &State, node: &str, ask: &Ask<'_>, verb_fits: bool) -> Verdict {
    if !verb_fits {
        return no("");
    }
    if ask.name.is_empty() || ask.namespace.is_empty() {
        return no("can only read an object of this kind by its name");
    }
    let refers = |pod: &Value| refers_to(pod, ask.resource, ask.name);
    if pods_of(state, node, Some(ask.namespace)).iter().any(refers) {
        return Verdict::Allowed;
    }
    Verdict::Refused(format!("no relationship found between node '{node}' and this object"))
}

fn mounts_volume(state: &State, node: &str, volume: &str) -> bool {
    pods_of(state, node, None).iter().any(|pod| {
        let space = pod["metadata"]["namespace"].as_str().unwrap_or_default();
        claims(pod).any(|claim| {
            let claim = state.store.value("", "persistentvolumeclaims", Some(space), &claim);
            claim.is_some_and(|c| c["spec"]["volumeName"] == volume)
        })
    })
}

fn attached_here(state: &State, node: &str, name: &str) -> bool {
    let attachment = state.store.value("storage.k8s.io", "volumeattachments", None, name);
    attachment.is_some_and(|a| a["spec"]["nodeName"] == node)
}

fn volumes(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["spec"]["volumes"].as_array().into_iter().flatten()
}

fn claims(pod: &Value) -> impl Iterator<Item = String> {
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    volumes(pod).filter_map(move |v| {
        let ephemeral = v["ephemeral"]
            .is_object()
            .then(|| format!("{pod_name}-{}", v["name"].as_str().unwrap_or_default()));
        v["persistentVolumeClaim"]["claimName"].as_str().map(str::to_owned).or(ephemeral)
    })
}

/// Whether a pod needs the object of that name. Looks at every list of containers and every volume source.
fn refers_to(pod: &Value, resource: &str, name: &str) -> bool {
    match resource {
        "serviceaccounts" => pod["spec"]["serviceAccountName"] == name,
        "persistentvolumeclaims" => claims(pod).any(|claim| claim == name),
        "secrets" => {
            let pulls = pod["spec"]["imagePullSecrets"].as_array().into_iter().flatten();
            pulls.into_iter().any(|s| s["name"] == name)
                || containers(pod).any(|c| in_environment(c, "secretRef", "secretKeyRef", name))
                || volumes(pod).any(|v| secret_volume(v, name))
        }
        "configmaps" => {
            containers(pod).any(|c| in_environment(c, "configMapRef", "configMapKeyRef", name))
                || volumes(pod).any(|v| {
                    v["configMap"]["name"] == name || sources(v).any(|s| s["configMap"]["name"] == name)
                })
        }
        _ => false,
    }
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
}

fn in_environment(container: &Value, from: &str, key: &str, name: &str) -> bool {
    let all = |field: &str| container[field].as_array().into_iter().flatten();
    all("envFrom").any(|e| e[from]["name"] == name) || all("env").any(|e| e["valueFrom"][key]["name"] == name)
}

fn sources(volume: &Value) -> impl Iterator<Item = &Value> {
    volume["projected"]["sources"].as_array().into_iter().flatten()
}

fn secret_volume(volume: &Value, name: &str) -> bool {
    const DRIVERS: [&str; 7] = ["azureFile", "cephfs", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"];
    volume["secret"]["secretName"] == name
        || sources(volume).any(|s| s["secret"]["name"] == name)
        || volume["csi"]["nodePublishSecretRef"]["name"] == name
        || volume["azureFile"]["secretName"] == name
        || DRIVERS.iter().any(|driver| volume[driver]["secretRef"]["name"] == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finds_references_in_all_containers_and_volumes() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "initContainers": [{"envFrom": [{"secretRef": {"name": "a"}}]}],
            "containers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "b"}}}]}],
            "ephemeralContainers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "c"}}}]}],
            "volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "d"}}]}}, {"name": "e", "ephemeral": {}}],
            "imagePullSecrets": [{"name": "f"}],
        }});
        for name in ["a", "c", "d", "f"] {
            assert!(refers_to(&pod, "secrets", name), "{name}");
        }
        assert!(refers_to(&pod, "configmaps", "b"));
        assert!(refers_to(&pod, "persistentvolumeclaims", "p-e"));
        assert!(!refers_to(&pod, "secrets", "b"));
    }
}
