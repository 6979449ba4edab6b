//! The DNS view on the wire and in the model.

use std::net::AddrParseError;

use skep_model::{
    DnsChange, DnsPort, DnsTarget, DnsView, HeadlessEndpoint, HeadlessSubset, NamespacedName, PortError,
    Protocol, ProtocolError,
};

use crate::proxy as wire;

/// A message that does not describe a DNS view.
#[derive(Debug, thiserror::Error)]
pub enum DnsWireError {
    /// A required part is absent.
    #[error("the DNS update lacks its {0}")]
    Missing(&'static str),
    /// An address does not parse.
    #[error("the DNS update holds the address {text:?}")]
    Address {
        /// The text.
        text: String,
        /// Why it does not parse.
        #[source]
        source: AddrParseError,
    },
    /// A port is out of range.
    #[error("the DNS update holds a bad port")]
    Port(#[from] PortError),
    /// A protocol is unknown.
    #[error("the DNS update holds a bad protocol")]
    Protocol(#[from] ProtocolError),
}

impl From<&DnsView> for wire::DnsSnapshot {
    fn from(view: &DnsView) -> Self {
        wire::DnsSnapshot {
            services: view.services.iter().map(|(name, target)| service_to_wire(name, target)).collect(),
            namespaces: view.namespaces.iter().cloned().collect(),
        }
    }
}

impl TryFrom<wire::DnsSnapshot> for DnsView {
    type Error = DnsWireError;

    fn try_from(snapshot: wire::DnsSnapshot) -> Result<Self, DnsWireError> {
        Ok(DnsView {
            services: snapshot.services.into_iter().map(service_from_wire).collect::<Result<_, _>>()?,
            namespaces: snapshot.namespaces.into_iter().collect(),
        })
    }
}

impl From<&DnsChange> for wire::DnsDelta {
    fn from(change: &DnsChange) -> Self {
        wire::DnsDelta {
            services: change.services.iter().map(|(name, target)| service_to_wire(name, target)).collect(),
            removed_services: change.removed_services.iter().map(name_to_wire).collect(),
            namespaces: change.namespaces.iter().cloned().collect(),
            removed_namespaces: change.removed_namespaces.iter().cloned().collect(),
        }
    }
}

impl TryFrom<wire::DnsDelta> for DnsChange {
    type Error = DnsWireError;

    fn try_from(delta: wire::DnsDelta) -> Result<Self, DnsWireError> {
        Ok(DnsChange {
            services: delta.services.into_iter().map(service_from_wire).collect::<Result<_, _>>()?,
            removed_services: delta.removed_services.into_iter().map(name_from_wire).collect(),
            namespaces: delta.namespaces.into_iter().collect(),
            removed_namespaces: delta.removed_namespaces.into_iter().collect(),
        })
    }
}

fn name_to_wire(name: &NamespacedName) -> wire::ServiceName {
    wire::ServiceName { namespace: name.namespace.clone(), name: name.name.clone() }
}

fn name_from_wire(name: wire::ServiceName) -> NamespacedName {
    NamespacedName { namespace: name.namespace, name: name.name }
}

fn service_to_wire(name: &NamespacedName, target: &DnsTarget) -> wire::DnsService {
    use wire::dns_service::Target;
    let target = match target {
        DnsTarget::Cluster { addresses, ports } => Target::Cluster(wire::ClusterTarget {
            addresses: addresses.iter().map(ToString::to_string).collect(),
            ports: ports_to_wire(ports),
        }),
        DnsTarget::Headless(subsets) => {
            Target::Headless(wire::HeadlessTarget { subsets: subsets.iter().map(subset_to_wire).collect() })
        }
        DnsTarget::External(name) => Target::ExternalName(name.clone()),
    };
    wire::DnsService { name: Some(name_to_wire(name)), target: Some(target) }
}

fn service_from_wire(service: wire::DnsService) -> Result<(NamespacedName, DnsTarget), DnsWireError> {
    use wire::dns_service::Target;
    let name = name_from_wire(service.name.ok_or(DnsWireError::Missing("service name"))?);
    let target = match service.target.ok_or(DnsWireError::Missing("service target"))? {
        Target::Cluster(cluster) => DnsTarget::Cluster {
            addresses: cluster.addresses.iter().map(|text| parse_address(text)).collect::<Result<_, _>>()?,
            ports: ports_from_wire(cluster.ports)?,
        },
        Target::Headless(headless) => {
            DnsTarget::Headless(headless.subsets.into_iter().map(subset_from_wire).collect::<Result<_, _>>()?)
        }
        Target::ExternalName(name) => DnsTarget::External(name),
    };
    Ok((name, target))
}

fn subset_to_wire(subset: &HeadlessSubset) -> wire::HeadlessSubset {
    wire::HeadlessSubset {
        ports: ports_to_wire(&subset.ports),
        endpoints: subset
            .endpoints
            .iter()
            .map(|endpoint| wire::HeadlessEndpoint {
                address: endpoint.address.to_string(),
                hostname: endpoint.hostname.clone().unwrap_or_default(),
            })
            .collect(),
    }
}

fn subset_from_wire(subset: wire::HeadlessSubset) -> Result<HeadlessSubset, DnsWireError> {
    let endpoint = |endpoint: wire::HeadlessEndpoint| {
        Ok(HeadlessEndpoint {
            address: parse_address(&endpoint.address)?,
            hostname: Some(endpoint.hostname).filter(|hostname| !hostname.is_empty()),
        })
    };
    Ok(HeadlessSubset {
        ports: ports_from_wire(subset.ports)?,
        endpoints: subset.endpoints.into_iter().map(endpoint).collect::<Result<_, DnsWireError>>()?,
    })
}

fn ports_to_wire(ports: &[DnsPort]) -> Vec<wire::DnsPort> {
    ports
        .iter()
        .map(|port| wire::DnsPort {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.name().into(),
            port: u32::from(port.port.get()),
        })
        .collect()
}

fn ports_from_wire(ports: Vec<wire::DnsPort>) -> Result<Vec<DnsPort>, DnsWireError> {
    ports
        .into_iter()
        .map(|port| {
            let protocol: Protocol = port.protocol.parse()?;
            let name = Some(port.name).filter(|name| !name.is_empty());
            Ok(DnsPort { name, protocol, port: port.port.try_into()? })
        })
        .collect()
}

fn parse_address(text: &str) -> Result<std::net::IpAddr, DnsWireError> {
    text.parse().map_err(|source| DnsWireError::Address { text: text.into(), source })
}

#[cfg(test)]
mod tests {
    use skep_model::Port;

    use super::*;

    fn view() -> DnsView {
        let port =
            DnsPort { name: Some("http".into()), protocol: Protocol::Tcp, port: Port::new(80).unwrap() };
        let endpoint = |address: &str, hostname: Option<&str>| HeadlessEndpoint {
            address: address.parse().unwrap(),
            hostname: hostname.map(Into::into),
        };
        let subset = HeadlessSubset {
            ports: vec![DnsPort { name: None, ..port.clone() }],
            endpoints: vec![endpoint("10.244.0.2", Some("db-0")), endpoint("fd00::2", None)],
        };
        DnsView {
            services: [
                (
                    NamespacedName::new("a", "web"),
                    DnsTarget::Cluster { addresses: vec!["10.96.0.7".parse().unwrap()], ports: vec![port] },
                ),
                (NamespacedName::new("a", "db"), DnsTarget::Headless(vec![subset])),
                (NamespacedName::new("b", "far"), DnsTarget::External("example.com".into())),
            ]
            .into(),
            namespaces: ["a".to_owned(), "b".to_owned()].into(),
        }
    }

    #[test]
    fn a_view_survives_the_wire() {
        let view = view();
        assert_eq!(DnsView::try_from(wire::DnsSnapshot::from(&view)).unwrap(), view);
    }

    #[test]
    fn a_change_survives_the_wire() {
        let change = view().change_to(&DnsView::default());
        assert_eq!(DnsChange::try_from(wire::DnsDelta::from(&change)).unwrap(), change);
        let change = DnsView::default().change_to(&view());
        assert_eq!(DnsChange::try_from(wire::DnsDelta::from(&change)).unwrap(), change);
    }

    #[test]
    fn a_message_without_a_target_is_refused() {
        let snapshot = wire::DnsSnapshot {
            services: vec![wire::DnsService { name: Some(wire::ServiceName::default()), target: None }],
            namespaces: vec![],
        };
        assert!(matches!(DnsView::try_from(snapshot), Err(DnsWireError::Missing("service target"))));
    }
}
