//! Which addresses may be frontends and which may be backends, whatever the API says.
//!
//! Whoever may write EndpointSlices must not gain access to services of the nodes with it, nor capture addresses that
//! belong to others (CVE-2020-8554, CVE-2021-25740).

use std::{fmt, net::IpAddr};

use skep_model::NamespacedName;

use crate::{context::Context, input::Endpoint};

/// Why an address is refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unsafe {
    /// It never leaves a machine.
    Loopback,
    /// It never leaves a network segment; metadata services of clouds have such addresses.
    LinkLocal,
    /// It is no single machine's address.
    NotUnicast,
    /// It is another family's in disguise.
    Mapped,
    /// It belongs to a node, and the endpoint is no pod of that node.
    Node(String),
    /// It lies in the range of cluster IPs.
    ServiceRange,
    /// It lies in the range of pods.
    PodRange,
}

impl fmt::Display for Unsafe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsafe::Loopback => f.write_str("a loopback address"),
            Unsafe::LinkLocal => f.write_str("a link-local address"),
            Unsafe::NotUnicast => f.write_str("no unicast address"),
            Unsafe::Mapped => f.write_str("an IPv4 address written as IPv6"),
            Unsafe::Node(node) => write!(f, "an address of node {node}, and not that of a pod there"),
            Unsafe::ServiceRange => f.write_str("in the range of cluster IPs"),
            Unsafe::PodRange => f.write_str("in the range of pods"),
        }
    }
}

/// Why the data path may not send to the endpoint on a Service's behalf; `None` when it may.
///
/// What an endpoint says of itself (that it is a pod, and on which node) is believed: agents know the pods of other
/// nodes only by what those have published, which host-network pods are no part of.
#[must_use]
pub fn endpoint(endpoint: &Endpoint, service: &NamespacedName, context: &Context) -> Option<Unsafe> {
    let ip = endpoint.address;
    if let Some(why) = never(ip) {
        return Some(why);
    }
    if context.settings.service_ranges.iter().any(|range| range.contains(ip)) {
        return Some(Unsafe::ServiceRange);
    }
    let holder = context.nodes.get(&ip)?;
    let is_pod_there = endpoint.is_pod && endpoint.node.as_deref() == Some(holder);
    // The API servers' own Service: written by them, and they are on nodes.
    let is_api = service.namespace == "default" && service.name == "kubernetes";
    (!is_pod_there && !is_api).then(|| Unsafe::Node(holder.clone()))
}

/// Why a Service may not have the address besides its cluster IPs; `None` when it may.
#[must_use]
pub fn frontend(ip: IpAddr, context: &Context) -> Option<Unsafe> {
    let settings = &context.settings;
    let within = |ranges: &[skep_model::IpCidr]| ranges.iter().any(|range| range.contains(ip));
    never(ip)
        .or_else(|| within(&settings.service_ranges).then_some(Unsafe::ServiceRange))
        .or_else(|| within(&settings.pod_ranges).then_some(Unsafe::PodRange))
}

/// Why nobody's traffic is led to or from the address; `None` when it may be.
#[must_use]
pub fn never(ip: IpAddr) -> Option<Unsafe> {
    let (link_local, broadcast, mapped) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.is_broadcast(), false),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), false, ip.to_ipv4_mapped().is_some()),
    };
    if ip.is_loopback() {
        Some(Unsafe::Loopback)
    } else if link_local {
        Some(Unsafe::LinkLocal)
    } else if ip.is_unspecified() || ip.is_multicast() || broadcast {
        Some(Unsafe::NotUnicast)
    } else if mapped {
        Some(Unsafe::Mapped)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_no_machines_never_serve() {
        for (text, why) in [
            ("127.0.0.1", Unsafe::Loopback),
            ("::1", Unsafe::Loopback),
            ("169.254.169.254", Unsafe::LinkLocal),
            ("fe80::1", Unsafe::LinkLocal),
            ("0.0.0.0", Unsafe::NotUnicast),
            ("224.0.0.1", Unsafe::NotUnicast),
            ("255.255.255.255", Unsafe::NotUnicast),
            ("ff02::1", Unsafe::NotUnicast),
            ("::ffff:127.0.0.1", Unsafe::Mapped),
        ] {
            assert_eq!(never(text.parse().unwrap()), Some(why), "{text}");
        }
        for text in ["10.244.0.2", "192.0.2.1", "fd00::2"] {
            assert_eq!(never(text.parse().unwrap()), None, "{text}");
        }
    }
}
