//! EndpointSlices.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1 as discovery;
use skep_model::{IpFamily, NamespacedName, Port, Protocol};

use super::{InputError, is_excluded, label, name_of, parse_address, protocol_of, usable};

/// The label that ties a slice to its Service.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// For whom an endpoint is meant (KEP-2433, KEP-3015).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Nodes.
    pub nodes: Vec<Box<str>>,
    /// Zones.
    pub zones: Vec<Box<str>>,
}

/// One address of an endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Takes new connections.
    pub ready: bool,
    /// Answers, be it while shutting down.
    pub serving: bool,
    /// Shuts down.
    pub terminating: bool,
    /// Whether it is said to be a pod.
    pub is_pod: bool,
    /// Node it runs on.
    pub node: Option<Box<str>>,
    /// Hostname the pod asked for.
    pub hostname: Option<Box<str>>,
    /// For whom it is meant; `None` when for everybody.
    pub hints: Option<Box<Hints>>,
}

/// A port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name; empty when unnamed.
    pub name: Box<str>,
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
    /// Whether its labels leave balancing to others.
    pub excluded: bool,
    /// Ports that all endpoints have.
    pub ports: Vec<SlicePort>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
    /// What could not be used of the object.
    pub faults: Vec<String>,
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
        let mut faults = Vec::new();
        let ports = usable(object.ports.iter().flatten().filter_map(slice_port), &mut faults);
        let endpoints = match family {
            Some(family) => usable(
                object.endpoints.iter().flatten().flat_map(|object| endpoints(object, family)),
                &mut faults,
            ),
            None => Vec::new(),
        };
        Ok(Slice {
            service: NamespacedName::new(name.namespace.clone(), service),
            name,
            family,
            excluded: is_excluded(&object.metadata),
            ports,
            endpoints,
            faults,
        })
    }
}

/// A port without a number means "all ports", which only consumers other than Services use.
fn slice_port(port: &discovery::EndpointPort) -> Option<Result<SlicePort, InputError>> {
    let number = port.port?;
    let parse = || {
        Ok(SlicePort {
            name: port.name.as_deref().unwrap_or_default().into(),
            protocol: protocol_of(port.protocol.as_deref())?,
            port: number.try_into()?,
        })
    };
    Some(parse())
}

/// An endpoint by its addresses, which are equivalent; in practice there is one.
fn endpoints(
    object: &discovery::Endpoint,
    family: IpFamily,
) -> impl Iterator<Item = Result<Endpoint, InputError>> + '_ {
    object.addresses.iter().filter_map(move |text| {
        let address = match parse_address(text) {
            Ok(address) => address,
            Err(error) => return Some(Err(error)),
        };
        (IpFamily::of(address) == family).then(|| Ok(endpoint(object, address)))
    })
}

fn endpoint(object: &discovery::Endpoint, address: IpAddr) -> Endpoint {
    let conditions = object.conditions.as_ref();
    Endpoint {
        address,
        ready: conditions.and_then(|conditions| conditions.ready).unwrap_or(true),
        serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(true),
        terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
        is_pod: object.target_ref.as_ref().is_some_and(|target| target.kind.as_deref() == Some("Pod")),
        node: object.node_name.as_deref().map(Into::into),
        hostname: object.hostname.as_deref().filter(|hostname| !hostname.is_empty()).map(Into::into),
        hints: hints(object).map(Box::new),
    }
}

fn hints(object: &discovery::Endpoint) -> Option<Hints> {
    let hints = object.hints.as_ref()?;
    let zones = hints.for_zones.iter().flatten().map(|zone| zone.name.as_str().into()).collect();
    let nodes = hints.for_nodes.iter().flatten().map(|node| node.name.as_str().into()).collect();
    let hints = Hints { nodes, zones };
    (hints != Hints::default()).then_some(hints)
}
