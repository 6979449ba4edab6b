//! Which endpoints a Service port uses now.
//!
//! The order of preference is Kubernetes': ready endpoints; if there are none, those that still serve while they
//! terminate (KEP-1669). With `internalTrafficPolicy: Local` the choice is made among this node's endpoints only, and
//! an empty choice stays empty (KEP-2086).

use std::{collections::BTreeSet, net::IpAddr};

use skep_model::{Backend, IpFamily};

use crate::input::{Endpoint, InternalPolicy, Service, ServicePort, Slice, SlicePort};

/// The endpoints of one port and family, in slot order.
#[must_use]
pub fn backends<'a>(
    service: &Service,
    port: &ServicePort,
    family: IpFamily,
    slices: impl Iterator<Item = &'a Slice>,
    node: &str,
) -> Vec<Backend> {
    let mut ready = BTreeSet::new();
    let mut terminating = BTreeSet::new();
    for slice in slices.filter(|slice| slice.family == Some(family)) {
        let same = |target: &&SlicePort| target.name == port.name && target.protocol == port.protocol;
        for target in slice.ports.iter().filter(same) {
            for endpoint in slice.endpoints.iter().filter(|endpoint| in_reach(endpoint, service, node)) {
                let chosen = match Condition::of(endpoint) {
                    Condition::Ready => &mut ready,
                    Condition::Terminating => &mut terminating,
                    Condition::Unusable => continue,
                };
                let usable = endpoint.addresses.iter().copied().filter(|address| may_receive(*address));
                chosen.extend(usable.map(|ip| Backend { ip, port: target.port, protocol: target.protocol }));
            }
        }
    }
    if ready.is_empty() { terminating } else { ready }.into_iter().collect()
}

/// What an endpoint is good for.
enum Condition {
    /// New connections.
    Ready,
    /// New connections, when nobody is ready.
    Terminating,
    /// Nothing.
    Unusable,
}

impl Condition {
    fn of(endpoint: &Endpoint) -> Self {
        match (endpoint.ready, endpoint.serving && endpoint.terminating) {
            (true, _) => Condition::Ready,
            (false, true) => Condition::Terminating,
            (false, false) => Condition::Unusable,
        }
    }
}

fn in_reach(endpoint: &Endpoint, service: &Service, node: &str) -> bool {
    match service.internal_policy {
        InternalPolicy::Cluster => true,
        InternalPolicy::Local => endpoint.node.as_deref() == Some(node),
    }
}

/// Whether the data path may send to the address on a Service's behalf. Whoever may write EndpointSlices must not gain
/// access to loopback or link-local services of the nodes with it.
#[must_use]
pub fn may_receive(address: IpAddr) -> bool {
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        return false;
    }
    match address {
        IpAddr::V4(address) => !address.is_link_local() && !address.is_broadcast(),
        IpAddr::V6(address) => !address.is_unicast_link_local() && address.to_ipv4_mapped().is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_node_itself_never_receive() {
        for text in
            ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "fe80::1"]
        {
            assert!(!may_receive(text.parse().unwrap()), "{text}");
        }
        for text in ["::ffff:127.0.0.1", "ff02::1"] {
            assert!(!may_receive(text.parse().unwrap()), "{text}");
        }
        for text in ["10.244.0.2", "192.0.2.1", "fd00::2"] {
            assert!(may_receive(text.parse().unwrap()), "{text}");
        }
    }
}
