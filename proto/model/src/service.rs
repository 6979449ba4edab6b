//! What a Service becomes on a node: frontends (where clients connect) and backends (where packets go).

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{
    name::NamespacedName,
    port::{Port, Protocol},
};

/// Number of a frontend in the data path; zero is never used. Stable while the frontend exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FrontendId(pub u32);

/// Why an address is a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FrontendKind {
    /// A Service's cluster IP: reachable from this cluster's nodes and pods only.
    ClusterIp,
    /// A node port on this node's own addresses.
    NodePort,
    /// An external IP listed in the Service.
    ExternalIp,
    /// An address assigned by a load balancer.
    LoadBalancer,
}

/// Where clients connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FrontendAddress {
    /// Destination address.
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

/// A frontend with the backends that new connections are spread over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// Stable number.
    pub id: FrontendId,
    /// Where clients connect.
    pub address: FrontendAddress,
    /// Why the address is a frontend.
    pub kind: FrontendKind,
    /// The Service.
    pub service: NamespacedName,
    /// Name of the Service port; empty for a single unnamed port.
    pub port_name: String,
    /// Backends for new connections, in slot order; empty means connections are refused.
    pub backends: Vec<Backend>,
    /// Seconds that connections of one client stick to a backend; `None` without session affinity.
    pub affinity_seconds: Option<u32>,
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
}
