//! What was refused, told to the people who can change it.

use std::{fmt, net::IpAddr};

use skep_model::{FrontendAddress, Port};

use crate::{frontend::Owner, safety::Unsafe};

/// Something of a Service that is not done. One of each suffices: it is told once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// `spec.externalIPs` are not allowed, or not these.
    ExternalIp(IpAddr),
    /// An address that no Service may have.
    Address(IpAddr, Unsafe),
    /// Another object has the address.
    Conflict {
        /// The address.
        address: FrontendAddress,
        /// Who has it.
        holder: Owner,
    },
    /// An endpoint that no Service may lead to.
    Endpoint(IpAddr, Unsafe),
    /// SCTP cannot be given another port on its way.
    SctpPort {
        /// The Service's port.
        port: Port,
        /// The endpoints' port.
        target: Port,
    },
    /// Part of an object does not parse.
    Malformed(String),
    /// The node has no number left for the Service.
    Exhausted,
}

impl Problem {
    /// A word for machines, as Events have it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Problem::ExternalIp(_) => "ExternalIPIgnored",
            Problem::Address(..) => "AddressRefused",
            Problem::Conflict { .. } => "AddressConflict",
            Problem::Endpoint(..) => "EndpointRefused",
            Problem::SctpPort { .. } => "SctpPortUnsupported",
            Problem::Malformed(_) => "Malformed",
            Problem::Exhausted => "TooManyServices",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::ExternalIp(ip) => write!(
                f,
                "external IP {ip} is not served: it lies in no range of loadBalancer.externalIPs.allowedRanges"
            ),
            Problem::Address(ip, why) => write!(f, "address {ip} is not served: it is {why}"),
            Problem::Conflict { address, holder } => {
                let kind = if matches!(holder, Owner::Service(_)) { "Service " } else { "" };
                write!(f, "{address} is not served for this Service: the older {kind}{holder} has it")
            }
            Problem::Endpoint(ip, why) => write!(f, "endpoint {ip} gets no traffic: it is {why}"),
            Problem::SctpPort { port, target } => write!(
                f,
                "SCTP packets are not given another port: use targetPort {port} instead of {target}"
            ),
            Problem::Malformed(fault) => write!(f, "ignored: {fault}"),
            Problem::Exhausted => f.write_str("the node has no number left for another Service"),
        }
    }
}
