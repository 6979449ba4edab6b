//! The rows that the data path gets.

use std::{fmt, net::IpAddr, sync::Arc};

use skep_model::{Backend, FrontendAddress, FrontendKind, IpCidr, NamespacedName, Scope, SetId};

/// Whose frontends they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A Service.
    Service(NamespacedName),
    /// A pod of this node with host ports.
    Pod(NamespacedName),
}

impl Owner {
    /// The object's name.
    #[must_use]
    pub fn name(&self) -> &NamespacedName {
        match self {
            Owner::Service(name) | Owner::Pod(name) => name,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Service(name) => name.fmt(f),
            Owner::Pod(name) => write!(f, "pod {name}"),
        }
    }
}

/// A row: where clients connect, and whose packets it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    /// Where clients connect.
    pub address: FrontendAddress,
    /// Whose packets it is for.
    pub scope: Scope,
}

/// How a frontend is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrontendFlags {
    /// Clients outside the cluster may use it.
    pub external: bool,
    /// Clients outside the cluster use the row of [`Scope::Outside`].
    pub split: bool,
    /// Clients outside the cluster must come from the set's source ranges.
    pub source_ranges: bool,
    /// Without backends, packets are dropped and not refused: there are backends, but elsewhere.
    pub silent: bool,
}

impl FrontendFlags {
    /// Names of those that are set.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            (self.external, "external"),
            (self.split, "split"),
            (self.source_ranges, "sourceRanges"),
            (self.silent, "silent"),
        ];
        all.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name).collect()
    }
}

/// What a row leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// The set of its backends.
    pub set: SetId,
    /// Why the address is a frontend.
    pub kind: FrontendKind,
    /// Whose it is.
    pub owner: Arc<Owner>,
    /// Name of the Service port; empty for a single unnamed port.
    pub port_name: Arc<str>,
    /// How it is served.
    pub flags: FrontendFlags,
    /// Seconds that connections of one client stick to a backend; zero without session affinity.
    pub affinity_seconds: u32,
    /// Backends in slot order; none means that connections are refused, or dropped if silent.
    pub backends: Arc<[Backend]>,
    /// Size of the set's Maglev table; zero when there is none.
    pub maglev: u16,
}

/// A set of backends, as all rows of a Service port share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Backends in slot order.
    pub backends: Arc<[Backend]>,
    /// Size of its Maglev table; zero when there is none.
    pub maglev: u16,
    /// Sources that rows with [`FrontendFlags::source_ranges`] admit.
    pub sources: Arc<[IpCidr]>,
}

/// A Service whose load balancer asks this node whether it has endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Where it asks.
    pub port: u16,
    /// How many ready endpoints this node has.
    pub local_endpoints: usize,
}

/// The unspecified address of an address's family: the key of node ports.
#[must_use]
pub(crate) fn any_address(family: skep_model::IpFamily) -> IpAddr {
    match family {
        skep_model::IpFamily::V4 => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        skep_model::IpFamily::V6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}
