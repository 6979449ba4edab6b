//! What a pod contributes to a Service: its endpoint, and the ports it serves them on.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Node, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use skep_model::IpFamily;

use crate::pods;

const ZONE: &str = "topology.kubernetes.io/zone";

/// The pods behind a Service and the nodes they run on.
pub(crate) struct Backends<'a> {
    /// The Service.
    pub(crate) service: &'a Service,
    /// Pods that its selector matches.
    pub(crate) pods: &'a [Arc<Pod>],
    /// Nodes by name; pods on unknown nodes are left out until their node is known.
    pub(crate) nodes: &'a HashMap<String, Arc<Node>>,
}

impl Backends<'_> {
    /// Whether pods count as ready whatever they say.
    pub(crate) fn publish_not_ready(&self) -> bool {
        self.service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false)
    }

    /// The families the Service is served in.
    pub(crate) fn families(&self) -> Vec<IpFamily> {
        let spec = self.service.spec.as_ref();
        let named: Vec<IpFamily> = spec
            .and_then(|spec| spec.ip_families.as_ref())
            .into_iter()
            .flatten()
            .filter_map(|family| match family.as_str() {
                "IPv4" => Some(IpFamily::V4),
                "IPv6" => Some(IpFamily::V6),
                _ => None,
            })
            .collect();
        if !named.is_empty() {
            return named;
        }
        let address = spec.and_then(|spec| spec.cluster_ip.as_deref()).and_then(|text| text.parse().ok());
        match address {
            Some(IpAddr::V6(_)) => vec![IpFamily::V6],
            _ => vec![IpFamily::V4],
        }
    }

    /// Every endpoint of a family with the ports it serves.
    pub(crate) fn endpoints(&self, family: IpFamily) -> Vec<(Vec<EndpointPort>, Endpoint)> {
        let contributes = |pod: &&Arc<Pod>| !pods::is_finished(pod);
        self.pods
            .iter()
            .filter(contributes)
            .filter_map(|pod| Some((self.ports(pod), self.endpoint(pod, family)?)))
            .collect()
    }

    /// The ports of the Service as `pod` serves them, in order.
    pub(crate) fn ports(&self, pod: &Pod) -> Vec<EndpointPort> {
        let ports = self.service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
        let mut ports: Vec<EndpointPort> = ports
            .into_iter()
            .flatten()
            .filter_map(|port| {
                Some(EndpointPort {
                    name: Some(port.name.clone().unwrap_or_default()),
                    port: Some(target(port, pod)?),
                    protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
                    app_protocol: port.app_protocol.clone(),
                })
            })
            .collect();
        ports.sort_by(|a, b| (&a.name, &a.protocol, a.port).cmp(&(&b.name, &b.protocol, b.port)));
        ports
    }

    fn endpoint(&self, pod: &Pod, family: IpFamily) -> Option<Endpoint> {
        let address = address(pod, family)?;
        let node_name = pods::node_of(pod);
        let node = node_name.and_then(|name| self.nodes.get(name));
        if node.is_none() && !self.publish_not_ready() {
            return None;
        }
        let serving = pods::is_ready(pod);
        let terminating = pods::is_terminating(pod);
        let ready = self.publish_not_ready() || (serving && !terminating);
        let zone = node.and_then(|node| node.labels().get(ZONE).cloned());
        Some(Endpoint {
            addresses: vec![address.to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(ready),
                serving: Some(serving),
                terminating: Some(terminating),
            }),
            hostname: self.hostname(pod),
            node_name: node_name.map(Into::into),
            target_ref: Some(reference(pod)),
            hints: ready.then(|| self.hints(node_name, zone.as_deref())).flatten(),
            zone,
            ..Endpoint::default()
        })
    }

    /// Whose clients the endpoint is for, as `trafficDistribution` says: with several families of hints the
    /// nearer one counts first, and a reader that does not find itself in any falls back to all endpoints.
    fn hints(&self, node: Option<&str>, zone: Option<&str>) -> Option<EndpointHints> {
        let distribution = self.service.spec.as_ref()?.traffic_distribution.as_deref()?;
        let zones = zone.map(|name| vec![ForZone { name: name.to_owned() }]);
        let nodes = node.map(|name| vec![ForNode { name: name.to_owned() }]);
        match distribution {
            "PreferClose" | "PreferSameZone" => {
                zones.map(|zones| EndpointHints { for_zones: Some(zones), for_nodes: None })
            }
            "PreferSameNode" => {
                let hints = EndpointHints { for_zones: zones, for_nodes: nodes };
                (hints != EndpointHints::default()).then_some(hints)
            }
            _ => None,
        }
    }

    /// The name of a pod within a headless Service that it names as its subdomain.
    pub(crate) fn hostname(&self, pod: &Pod) -> Option<String> {
        let spec = pod.spec.as_ref()?;
        let hostname = spec.hostname.as_ref().filter(|name| !name.is_empty())?;
        (spec.subdomain == self.service.metadata.name
            && pod.metadata.namespace == self.service.metadata.namespace)
            .then(|| hostname.clone())
    }
}

/// The pod as the target of an endpoint.
pub(crate) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The pod's address of a family.
pub(crate) fn address(pod: &Pod, family: IpFamily) -> Option<IpAddr> {
    let status = pod.status.as_ref()?;
    let many = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let all = many.chain(status.pod_ip.as_deref());
    all.filter_map(|text| text.parse::<IpAddr>().ok()).find(|address| {
        matches!((address, family), (IpAddr::V4(_), IpFamily::V4) | (IpAddr::V6(_), IpFamily::V6))
    })
}

/// The number of a Service port on a pod: as given, or of the container port of that name.
fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => return Some(port.port),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(sidecar));
    let wanted = port.protocol.as_deref().unwrap_or("TCP");
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .find(|own| own.name.as_ref() == Some(name) && own.protocol.as_deref().unwrap_or("TCP") == wanted)
        .map(|own| own.container_port)
}
