//! What a Service becomes on a node: frontends (where clients connect) and backends (where packets go).

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::port::{Port, Protocol};

/// Number of a set of backends in the data path; zero is never used. Stable while the set exists. All frontends of one
/// Service port share their sets, so that slots, Maglev tables and session affinity are shared too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SetId(pub u32);

/// Why an address is a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FrontendKind {
    /// A Service's cluster IP: reachable from this cluster's nodes and pods only.
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// A node port, on the addresses of the node that were chosen for node ports.
    NodePort,
    /// An external IP listed in the Service.
    #[serde(rename = "ExternalIP")]
    ExternalIp,
    /// An address assigned by a load balancer.
    LoadBalancer,
    /// A host port of one of this node's pods.
    HostPort,
}

impl FrontendKind {
    /// The name as Kubernetes writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FrontendKind::ClusterIp => "ClusterIP",
            FrontendKind::NodePort => "NodePort",
            FrontendKind::ExternalIp => "ExternalIP",
            FrontendKind::LoadBalancer => "LoadBalancer",
            FrontendKind::HostPort => "HostPort",
        }
    }
}

impl fmt::Display for FrontendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whose packets a frontend's row is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everybody's, unless an [`Scope::Outside`] row takes those of clients outside the cluster.
    Inside,
    /// Those of clients outside the cluster.
    Outside,
    /// Those that another node passed on unchanged, to be balanced over this node's own backends.
    Local,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scope::Inside => "inside",
            Scope::Outside => "outside",
            Scope::Local => "local",
        })
    }
}

/// Where clients connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FrontendAddress {
    /// Destination address; the unspecified one stands for every address that node ports answer on.
    pub ip: IpAddr,
    /// Destination port.
    pub port: Port,
    /// Transport protocol.
    pub protocol: Protocol,
}

impl fmt::Display for FrontendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", std::net::SocketAddr::new(self.ip, self.port.get()), self.protocol)
    }
}

/// Where packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Backend {
    /// Pod (or external) address.
    pub ip: IpAddr,
    /// Port on that address.
    pub port: Port,
    /// Transport protocol.
    pub protocol: Protocol,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", std::net::SocketAddr::new(self.ip, self.port.get()), self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_like_sockets() {
        let port = Port::new(53).unwrap();
        let v4 = FrontendAddress { ip: IpAddr::from([10, 96, 0, 10]), port, protocol: Protocol::Udp };
        assert_eq!(v4.to_string(), "10.96.0.10:53/UDP");
        let v6 = Backend { ip: "fd00::1".parse().unwrap(), port, protocol: Protocol::Tcp };
        assert_eq!(v6.to_string(), "[fd00::1]:53/TCP");
    }

    #[test]
    fn kinds_serialize_as_they_are_shown() {
        for kind in [FrontendKind::ClusterIp, FrontendKind::ExternalIp, FrontendKind::HostPort] {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
    }
}
