//! The pod's hosts file: its own names and aliases, or the node's file for host-network pods. Pure text.

use k8s_openapi::api::core::v1::HostAlias;

use crate::pod::model::PodModel;

const HEAD: &str = "# Written by skep-kubelet for this pod.\n127.0.0.1\tlocalhost\n\
                    ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
                    ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// The file's text.
pub(crate) fn text(model: &PodModel, ips: &[String], domain: &str, node_file: &str) -> String {
    let spec = model.spec();
    let mut text = if model.host_network() { node_file.to_owned() } else { HEAD.to_owned() };
    if !model.host_network() {
        let hostname = super::hostname(model);
        let subdomain = spec.and_then(|s| s.subdomain.as_deref()).filter(|s| !s.is_empty());
        for ip in ips {
            let names = match subdomain {
                Some(sub) => format!("{hostname}.{sub}.{}.svc.{domain}\t{hostname}", model.id.namespace),
                None => hostname.clone(),
            };
            text.push_str(&format!("{ip}\t{names}\n"));
        }
    }
    let aliases = spec.and_then(|s| s.host_aliases.as_deref()).unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Host aliases of the pod.\n");
        aliases.iter().for_each(|alias| push(&mut text, alias));
    }
    text
}

fn push(text: &mut String, alias: &HostAlias) {
    let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
    text.push_str(&format!("{}\t{names}\n", alias.ip));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn write(spec: serde_json::Value) -> String {
        let pod = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec});
        let model = PodModel::new(Arc::new(serde_json::from_value(pod).unwrap()));
        text(&model, &["10.1.0.2".into()], "cluster.local", "192.0.2.1 node\n")
    }

    #[test]
    fn names_the_pod_its_subdomain_and_aliases() {
        let text = write(json!({"subdomain": "db", "containers": [],
            "hostAliases": [{"ip": "10.0.0.5", "hostnames": ["a", "b"]}]}));
        assert!(text.contains("10.1.0.2\tp.db.ns.svc.cluster.local\tp\n"));
        assert!(text.ends_with("10.0.0.5\ta\tb\n"));
    }

    #[test]
    fn host_network_pods_see_the_nodes_file() {
        assert_eq!(write(json!({"hostNetwork": true, "containers": []})), "192.0.2.1 node\n");
    }
}
