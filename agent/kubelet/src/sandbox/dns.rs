//! Resolver settings of a pod: its DNS policy, its own settings, the node's. Pure.

use k8s_openapi::api::core::v1::PodDNSConfig;
use skep_wire::cri::v1;

use crate::pod::model::PodModel;

/// The cluster's and the node's resolvers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resolvers {
    /// The cluster DNS addresses.
    pub(crate) cluster: Vec<String>,
    /// The cluster domain.
    pub(crate) domain: String,
    /// The node's own settings.
    pub(crate) node: v1::DnsConfig,
}

/// Reads a resolv.conf.
pub(crate) fn parse(resolv_conf: &str) -> v1::DnsConfig {
    let mut config = v1::DnsConfig::default();
    for line in resolv_conf.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search") => config.searches = words.map(str::to_owned).collect(),
            Some("options") => config.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    config
}

/// The settings of a pod.
pub(crate) fn config(model: &PodModel, resolvers: &Resolvers) -> v1::DnsConfig {
    let spec = model.spec();
    let policy = spec.and_then(|s| s.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let mut config = match policy {
        "None" => v1::DnsConfig::default(),
        "Default" => resolvers.node.clone(),
        "ClusterFirst" if model.host_network() => resolvers.node.clone(),
        _ if resolvers.cluster.is_empty() => resolvers.node.clone(),
        _ => cluster_first(model, resolvers),
    };
    if let Some(own) = spec.and_then(|s| s.dns_config.as_ref()) {
        merge(&mut config, own);
    }
    config
}

fn cluster_first(model: &PodModel, resolvers: &Resolvers) -> v1::DnsConfig {
    let domain = &resolvers.domain;
    let namespace = &model.id.namespace;
    let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
    searches.extend(resolvers.node.searches.iter().cloned());
    v1::DnsConfig { servers: resolvers.cluster.clone(), searches, options: vec!["ndots:5".to_owned()] }
}

fn merge(config: &mut v1::DnsConfig, own: &PodDNSConfig) {
    append(&mut config.servers, own.nameservers.iter().flatten());
    append(&mut config.searches, own.searches.iter().flatten());
    for option in own.options.iter().flatten() {
        let Some(name) = &option.name else { continue };
        config.options.retain(|known| known.split(':').next() != Some(name));
        config.options.push(match option.value.as_deref().filter(|v| !v.is_empty()) {
            Some(value) => format!("{name}:{value}"),
            None => name.clone(),
        });
    }
}

fn append<'a>(list: &mut Vec<String>, more: impl Iterator<Item = &'a String>) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn resolve(spec: serde_json::Value) -> v1::DnsConfig {
        let pod = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec});
        let model = PodModel::new(Arc::new(serde_json::from_value(pod).unwrap()));
        let resolvers = Resolvers {
            cluster: vec!["10.96.0.10".into()],
            domain: "cluster.local".into(),
            node: parse("# x\nnameserver 192.0.2.1\nsearch corp.example\noptions timeout:1"),
        };
        config(&model, &resolvers)
    }

    #[test]
    fn pods_ask_the_cluster_first() {
        let config = resolve(json!({"containers": []}));
        assert_eq!(config.servers, ["10.96.0.10"]);
        assert_eq!(
            config.searches,
            ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"]
        );
        assert_eq!(config.options, ["ndots:5"]);
    }

    #[test]
    fn host_network_pods_ask_as_the_node_does_unless_told() {
        let own = resolve(json!({"hostNetwork": true, "containers": []}));
        assert_eq!(own.servers, ["192.0.2.1"]);
        let cluster =
            resolve(json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet", "containers": []}));
        assert_eq!(cluster.servers, ["10.96.0.10"]);
    }

    #[test]
    fn own_settings_add_servers_and_replace_options() {
        let config = resolve(json!({"containers": [], "dnsConfig": {"nameservers": ["10.0.0.9"],
            "searches": ["extra"], "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}]}}));
        assert_eq!(config.servers, ["10.96.0.10", "10.0.0.9"]);
        assert_eq!(config.options, ["ndots:2", "rotate"]);
        let none = resolve(
            json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"]}}),
        );
        assert_eq!(none.servers, ["1.1.1.1"]);
        assert!(none.searches.is_empty());
    }
}
