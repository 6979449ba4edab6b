//! Nouns shared by every part of Skep: address families, CIDRs, ports, names, frontends and backends.
//!
//! Owns the types and their parsers: text and numbers become these types once, at the edge, with a typed error.
//! Owns no I/O, no clocks and no Kubernetes objects (those are in `skep-api`).
//!
//! Map: [`family`], [`cidr`] and [`ranges`] are the address arithmetic, generic over IPv4 and IPv6; [`port`] and
//! [`mac`] are the remaining packet nouns; [`name`] holds Kubernetes names; [`service`] is what the load balancer
//! computes and the data path stores; [`dns`] is what the node's DNS answers from.

pub mod cidr;
pub mod dns;
pub mod family;
pub mod mac;
pub mod name;
pub mod port;
pub mod ranges;
pub mod service;

pub use cidr::{Cidr, Cidr4, Cidr6, CidrError, IpCidr};
pub use dns::{DnsChange, DnsPort, DnsTarget, DnsView, HeadlessEndpoint, HeadlessSubset};
pub use family::{Address, IpFamily};
pub use mac::{MacAddr, MacError};
pub use name::{NameError, NamespacedName, NodeName};
pub use port::{Port, PortError, Protocol, ProtocolError};
pub use ranges::{Ranges, RangesError};
pub use service::{Backend, FrontendAddress, FrontendKind, Scope, SetId};

/// Kubernetes labels: key to value, in key order.
pub type Labels = std::collections::BTreeMap<String, String>;
