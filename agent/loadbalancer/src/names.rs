//! What the node's DNS answers for a Service.

use skep_model::{DnsPort, DnsTarget, HeadlessEndpoint, HeadlessSubset, Port, Protocol};

use crate::input::{Service, ServiceTarget, Slice};

/// The Service as names; `None` while it has no address yet.
#[must_use]
pub fn target<'a>(service: &Service, slices: impl Iterator<Item = &'a Slice>) -> Option<DnsTarget> {
    match &service.target {
        ServiceTarget::Cluster(addresses) => (!addresses.is_empty()).then(|| DnsTarget::Cluster {
            addresses: addresses.clone(),
            ports: service.ports.iter().map(|port| dns_port(&port.name, port.protocol, port.port)).collect(),
        }),
        ServiceTarget::Headless => {
            let mut subsets: Vec<_> = slices.filter_map(subset).collect();
            subsets.sort();
            Some(DnsTarget::Headless(subsets))
        }
        ServiceTarget::External(name) => Some(DnsTarget::External(name.clone())),
    }
}

/// The slice's ready endpoints; `None` when there are none. (A Service that publishes unready addresses has them
/// marked ready in its slices.)
fn subset(slice: &Slice) -> Option<HeadlessSubset> {
    let ready = slice.endpoints.iter().filter(|endpoint| endpoint.ready);
    let mut endpoints: Vec<_> = ready
        .map(|endpoint| HeadlessEndpoint {
            address: endpoint.address,
            hostname: endpoint.hostname.as_deref().map(Into::into),
        })
        .collect();
    endpoints.sort();
    let ports = slice.ports.iter().map(|port| dns_port(&port.name, port.protocol, port.port)).collect();
    (!endpoints.is_empty()).then_some(HeadlessSubset { ports, endpoints })
}

fn dns_port(name: &str, protocol: Protocol, port: Port) -> DnsPort {
    DnsPort { name: Some(name.to_owned()).filter(|name| !name.is_empty()), protocol, port }
}
