//! Variables that name the Services of a namespace (`WEB_SERVICE_HOST`, `WEB_PORT_80_TCP_ADDR`, ...). Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;

/// The variables for these Services. Headless and external-name ones have none.
pub(crate) fn variables<'a>(services: impl Iterator<Item = &'a Service>) -> BTreeMap<String, String> {
    let mut set = BTreeMap::new();
    for service in services {
        add(service, &mut set);
    }
    set
}

fn add(service: &Service, set: &mut BTreeMap<String, String>) {
    let Some(spec) = &service.spec else { return };
    let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { return };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let (Some(first), Some(name)) = (ports.first(), service.metadata.name.as_deref()) else { return };
    let prefix = upper(name);
    set.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
    set.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for (index, port) in ports.iter().enumerate() {
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            set.insert(format!("{prefix}_SERVICE_PORT_{}", upper(name)), port.port.to_string());
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{}:{}", protocol.to_lowercase(), bracketed(ip), port.port);
        if index == 0 {
            set.insert(format!("{prefix}_PORT"), url.clone());
        }
        let stem = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        set.insert(format!("{stem}_PROTO"), protocol.to_lowercase());
        set.insert(format!("{stem}_PORT"), port.port.to_string());
        set.insert(format!("{stem}_ADDR"), ip.to_owned());
        set.insert(stem, url);
    }
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

fn bracketed(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_host_port_and_each_port() {
        let service: Service = serde_json::from_value(json!({"metadata": {"name": "my-web"},
            "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 80, "name": "http"}, {"port": 53, "protocol": "UDP"}]}}))
        .unwrap();
        let set = variables([&service].into_iter());
        assert_eq!(set["MY_WEB_SERVICE_HOST"], "10.96.0.7");
        assert_eq!(set["MY_WEB_SERVICE_PORT"], "80");
        assert_eq!(set["MY_WEB_SERVICE_PORT_HTTP"], "80");
        assert_eq!(set["MY_WEB_PORT"], "tcp://10.96.0.7:80");
        assert_eq!(set["MY_WEB_PORT_53_UDP_PROTO"], "udp");
        assert_eq!(set["MY_WEB_PORT_80_TCP_ADDR"], "10.96.0.7");
    }

    #[test]
    fn headless_services_have_no_variables() {
        let service: Service = serde_json::from_value(json!({"metadata": {"name": "db"},
            "spec": {"clusterIP": "None", "ports": [{"port": 80}]}}))
        .unwrap();
        assert!(variables([&service].into_iter()).is_empty());
    }
}
