//! Kubernetes objects as this crate wants them: addresses, ports and conditions parsed, defaults applied.

use std::{
    collections::BTreeMap,
    net::{AddrParseError, IpAddr},
};

use k8s_openapi::{
    api::{
        core::v1::{self as core, ServiceSpec},
        discovery::v1 as discovery,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use skep_model::{IpFamily, NamespacedName, Port, PortError, Protocol, ProtocolError};

/// The label that ties a slice to its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that hands a Service to another implementation.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// How long session affinity lasts when the Service does not say.
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;

/// An object that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// A name or namespace is absent.
    #[error("the object has no name or namespace")]
    Nameless,
    /// A slice that belongs to no Service.
    #[error("the EndpointSlice has no label {SERVICE_NAME}")]
    NoService,
    /// An address does not parse.
    #[error("{text:?} is not an address")]
    Address {
        /// The text.
        text: String,
        /// Why.
        #[source]
        source: AddrParseError,
    },
    /// A port is out of range.
    #[error(transparent)]
    Port(#[from] PortError),
    /// A protocol is unknown.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

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

/// Which endpoints clients inside the cluster may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InternalPolicy {
    /// All of them.
    Cluster,
    /// Those of the client's own node.
    Local,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; empty when unnamed.
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Number that clients connect to.
    pub port: Port,
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Which.
    pub name: NamespacedName,
    /// What it is.
    pub target: ServiceTarget,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Which endpoints may be used.
    pub internal_policy: InternalPolicy,
    /// Session affinity by client address.
    pub affinity_seconds: Option<u32>,
    /// Whether another implementation balances it; its names still resolve.
    pub foreign: bool,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its addresses; they are equivalent, and in practice there is one.
    pub addresses: Vec<IpAddr>,
    /// Takes new connections.
    pub ready: bool,
    /// Answers, be it while shutting down.
    pub serving: bool,
    /// Shuts down.
    pub terminating: bool,
    /// Node it runs on.
    pub node: Option<String>,
    /// Hostname the pod asked for.
    pub hostname: Option<String>,
}

/// A port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name; empty when unnamed.
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Number on the endpoint.
    pub port: Port,
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Which.
    pub name: NamespacedName,
    /// Whose.
    pub service: NamespacedName,
    /// Family of its addresses; `None` for names, which are not balanced.
    pub family: Option<IpFamily>,
    /// Ports that all endpoints have.
    pub ports: Vec<SlicePort>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

impl TryFrom<&core::Service> for Service {
    type Error = InputError;

    fn try_from(object: &core::Service) -> Result<Self, InputError> {
        let name = name_of(&object.metadata)?;
        let empty = ServiceSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&empty);
        let ports = spec.ports.iter().flatten().map(service_port).collect::<Result<_, _>>()?;
        Ok(Service {
            name,
            target: target_of(spec)?,
            ports,
            internal_policy: match spec.internal_traffic_policy.as_deref() {
                Some("Local") => InternalPolicy::Local,
                _ => InternalPolicy::Cluster,
            },
            affinity_seconds: affinity_of(spec),
            foreign: label(&object.metadata, OTHER_PROXY).is_some(),
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
        name: port.name.clone().unwrap_or_default(),
        protocol: protocol_of(port.protocol.as_deref())?,
        port: port.port.try_into()?,
    })
}

fn affinity_of(spec: &ServiceSpec) -> Option<u32> {
    (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
        let seconds = config.and_then(|config| config.timeout_seconds);
        seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(DEFAULT_AFFINITY_SECONDS)
    })
}

impl TryFrom<&discovery::EndpointSlice> for Slice {
    type Error = InputError;

    fn try_from(object: &discovery::EndpointSlice) -> Result<Self, InputError> {
        let name = name_of(&object.metadata)?;
        let service = label(&object.metadata, SERVICE_NAME).ok_or(InputError::NoService)?;
        let family = match object.address_type.as_str() {
            "IPv4" => Some(IpFamily::V4),
            "IPv6" => Some(IpFamily::V6),
            _ => None,
        };
        let endpoints = match family {
            Some(_) => object.endpoints.iter().flatten().map(endpoint).collect::<Result<_, _>>()?,
            None => Vec::new(),
        };
        Ok(Slice {
            service: NamespacedName::new(name.namespace.clone(), service),
            name,
            family,
            ports: object.ports.iter().flatten().filter_map(slice_port).collect::<Result<_, _>>()?,
            endpoints,
        })
    }
}

/// A port without a number means "all ports", which only consumers other than Services use.
fn slice_port(port: &discovery::EndpointPort) -> Option<Result<SlicePort, InputError>> {
    let number = port.port?;
    let parse = || {
        Ok(SlicePort {
            name: port.name.clone().unwrap_or_default(),
            protocol: protocol_of(port.protocol.as_deref())?,
            port: number.try_into()?,
        })
    };
    Some(parse())
}

fn endpoint(object: &discovery::Endpoint) -> Result<Endpoint, InputError> {
    let conditions = object.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    Ok(Endpoint {
        addresses: object.addresses.iter().map(|text| parse_address(text)).collect::<Result<_, _>>()?,
        ready,
        serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(ready),
        terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
        node: object.node_name.clone(),
        hostname: object.hostname.clone().filter(|hostname| !hostname.is_empty()),
    })
}

fn name_of(metadata: &ObjectMeta) -> Result<NamespacedName, InputError> {
    match (&metadata.namespace, &metadata.name) {
        (Some(namespace), Some(name)) => Ok(NamespacedName::new(namespace, name)),
        _ => Err(InputError::Nameless),
    }
}

fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a String> {
    metadata.labels.as_ref().and_then(|labels: &BTreeMap<String, String>| labels.get(key))
}

fn protocol_of(text: Option<&str>) -> Result<Protocol, ProtocolError> {
    text.map_or(Ok(Protocol::Tcp), str::parse)
}

fn parse_address(text: &str) -> Result<IpAddr, InputError> {
    text.parse().map_err(|source| InputError::Address { text: text.into(), source })
}
