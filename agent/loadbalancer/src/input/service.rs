//! Services.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::core::v1::{self as core, ServiceSpec};
use skep_model::{IpCidr, IpFamily, NamespacedName, Port, Protocol};

use super::{InputError, created, is_excluded, name_of, parse_address, protocol_of, usable};

/// How long session affinity lasts when the Service does not say.
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;
/// Who may use a load balancer's addresses; older than the field of the same name, which wins.
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// What a Service is to its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceTarget {
    /// Cluster IPs, balanced.
    Cluster(Vec<IpAddr>),
    /// No address of its own: names of its endpoints only.
    Headless,
    /// An alias of another name.
    External(String),
}

/// Which endpoints clients may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// All of them.
    Cluster,
    /// Those of the node that the client is on, or that its packets came to.
    Local,
}

impl TrafficPolicy {
    fn of(text: Option<&str>) -> Self {
        if text == Some("Local") { TrafficPolicy::Local } else { TrafficPolicy::Cluster }
    }
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; empty when unnamed.
    pub name: Arc<str>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Number that clients connect to.
    pub port: Port,
    /// Number on the nodes' addresses.
    pub node_port: Option<Port>,
}

/// What clients outside the cluster may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// Which endpoints they may use.
    pub policy: TrafficPolicy,
    /// Families of its node ports.
    pub families: Vec<IpFamily>,
    /// Addresses that the Service asks for.
    pub external_ips: Vec<IpAddr>,
    /// Addresses that a load balancer hands to nodes.
    pub balancer_ips: Vec<IpAddr>,
    /// Who may use the load balancer's addresses; `None` when everybody.
    pub source_ranges: Option<Vec<IpCidr>>,
    /// Where the load balancer asks which nodes have endpoints.
    pub health_check_port: Option<Port>,
}

/// `spec.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// Cluster IPs, or none if headless.
    ClusterIp,
    /// Node ports, too.
    NodePort,
    /// Addresses of a load balancer, too.
    LoadBalancer,
    /// A name only.
    ExternalName,
}

impl ServiceKind {
    fn of(text: Option<&str>) -> Self {
        match text {
            Some("NodePort") => ServiceKind::NodePort,
            Some("LoadBalancer") => ServiceKind::LoadBalancer,
            Some("ExternalName") => ServiceKind::ExternalName,
            _ => ServiceKind::ClusterIp,
        }
    }

    /// The name as Kubernetes writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ServiceKind::ClusterIp => "ClusterIP",
            ServiceKind::NodePort => "NodePort",
            ServiceKind::LoadBalancer => "LoadBalancer",
            ServiceKind::ExternalName => "ExternalName",
        }
    }
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Which.
    pub name: NamespacedName,
    /// Its type.
    pub kind: ServiceKind,
    /// When it was created, in seconds; of two Services that want an address the older one gets it.
    pub created: i64,
    /// What it is.
    pub target: ServiceTarget,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Which endpoints clients of the cluster IPs may use.
    pub internal_policy: TrafficPolicy,
    /// Session affinity by client address.
    pub affinity_seconds: Option<u32>,
    /// Whether its labels leave balancing to others; its names still resolve.
    pub excluded: bool,
    /// What it is to clients outside the cluster, if anything.
    pub external: Option<Box<External>>,
    /// What could not be used of the object.
    pub faults: Vec<String>,
}

impl TryFrom<&core::Service> for Service {
    type Error = InputError;

    fn try_from(object: &core::Service) -> Result<Self, InputError> {
        let empty = ServiceSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&empty);
        let mut faults = Vec::new();
        let target = target_of(spec)?;
        let ports = usable(spec.ports.iter().flatten().map(service_port), &mut faults);
        Ok(Service {
            name: name_of(&object.metadata)?,
            kind: ServiceKind::of(spec.type_.as_deref()),
            created: created(&object.metadata),
            external: external_of(object, spec, &target, &ports, &mut faults).map(Box::new),
            target,
            ports,
            internal_policy: TrafficPolicy::of(spec.internal_traffic_policy.as_deref()),
            affinity_seconds: affinity_of(spec),
            excluded: is_excluded(&object.metadata),
            faults,
        })
    }
}

fn target_of(spec: &ServiceSpec) -> Result<ServiceTarget, InputError> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return Ok(ServiceTarget::External(spec.external_name.clone().unwrap_or_default()));
    }
    if spec.cluster_ip.as_deref() == Some("None") {
        return Ok(ServiceTarget::Headless);
    }
    let listed = spec.cluster_ips.iter().flatten();
    let mut addresses = listed.map(|text| parse_address(text)).collect::<Result<Vec<_>, _>>()?;
    if addresses.is_empty() {
        let single = spec.cluster_ip.as_deref().filter(|text| !text.is_empty());
        addresses.extend(single.map(parse_address).transpose()?);
    }
    Ok(ServiceTarget::Cluster(addresses))
}

fn service_port(port: &core::ServicePort) -> Result<ServicePort, InputError> {
    Ok(ServicePort {
        name: port.name.as_deref().unwrap_or_default().into(),
        protocol: protocol_of(port.protocol.as_deref())?,
        port: port.port.try_into()?,
        node_port: port.node_port.filter(|&number| number != 0).map(Port::try_from).transpose()?,
    })
}

fn affinity_of(spec: &ServiceSpec) -> Option<u32> {
    (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
        let seconds = config.and_then(|config| config.timeout_seconds);
        seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(DEFAULT_AFFINITY_SECONDS)
    })
}

fn external_of(
    object: &core::Service,
    spec: &ServiceSpec,
    target: &ServiceTarget,
    ports: &[ServicePort],
    faults: &mut Vec<String>,
) -> Option<External> {
    let ServiceTarget::Cluster(cluster_ips) = target else { return None };
    let is_balancer = spec.type_.as_deref() == Some("LoadBalancer");
    let external_ips = usable(spec.external_ips.iter().flatten().map(|text| parse_address(text)), faults);
    let has_node_ports = ports.iter().any(|port| port.node_port.is_some());
    if !is_balancer && !has_node_ports && external_ips.is_empty() {
        return None;
    }
    Some(External {
        policy: TrafficPolicy::of(spec.external_traffic_policy.as_deref()),
        families: families_of(spec, cluster_ips),
        external_ips,
        balancer_ips: if is_balancer { balancer_ips(object, faults) } else { Vec::new() },
        source_ranges: if is_balancer { source_ranges(object, spec, faults) } else { None },
        health_check_port: spec
            .health_check_node_port
            .filter(|&number| is_balancer && number != 0)
            .and_then(|number| Port::try_from(number).ok()),
    })
}

fn families_of(spec: &ServiceSpec, cluster_ips: &[IpAddr]) -> Vec<IpFamily> {
    let known = |text: &String| match text.as_str() {
        "IPv4" => Some(IpFamily::V4),
        "IPv6" => Some(IpFamily::V6),
        _ => None,
    };
    let mut families: Vec<IpFamily> = spec.ip_families.iter().flatten().filter_map(known).collect();
    families.extend(cluster_ips.iter().map(|ip| IpFamily::of(*ip)));
    families.sort_unstable();
    families.dedup();
    families
}

/// The addresses whose packets reach nodes unchanged; of mode `Proxy` they come with the address of the node.
fn balancer_ips(object: &core::Service, faults: &mut Vec<String>) -> Vec<IpAddr> {
    let status = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    let passed_on = ingress.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    let texts = passed_on.filter_map(|ingress| ingress.ip.as_deref()).filter(|text| !text.is_empty());
    usable(texts.map(parse_address), faults)
}

/// A range that does not parse allows nobody: an intended restriction never opens by a typing error.
fn source_ranges(
    object: &core::Service,
    spec: &ServiceSpec,
    faults: &mut Vec<String>,
) -> Option<Vec<IpCidr>> {
    let mut listed: Vec<&str> =
        spec.load_balancer_source_ranges.iter().flatten().map(|text| text.trim()).collect();
    if listed.is_empty() {
        let annotation = object.metadata.annotations.as_ref().and_then(|all| all.get(SOURCE_RANGES));
        let texts = annotation.into_iter().flat_map(|text| text.split(','));
        listed = texts.map(str::trim).filter(|text| !text.is_empty()).collect();
    }
    let parse =
        |text: &str| text.parse().map_err(|error: skep_model::CidrError| faults.push(error.to_string())).ok();
    (!listed.is_empty()).then(|| listed.into_iter().filter_map(parse).collect())
}
