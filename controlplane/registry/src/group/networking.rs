//! The groups `networking.k8s.io` and `discovery.k8s.io`.

use crate::strategy::Strategy;

pub(crate) mod endpoint_slice;
pub(crate) mod ingress;
pub(crate) mod ingress_class;
pub(crate) mod ip_address;
pub(crate) mod network_policy;
pub(crate) mod service_cidr;

pub(super) fn strategy(plural: &str) -> Option<&'static Strategy> {
    Some(match plural {
        "endpointslices" => &endpoint_slice::STRATEGY,
        "ingressclasses" => &ingress_class::STRATEGY,
        "ingresses" => &ingress::STRATEGY,
        "ipaddresses" => &ip_address::STRATEGY,
        "networkpolicies" => &network_policy::STRATEGY,
        "servicecidrs" => &service_cidr::STRATEGY,
        _ => return None,
    })
}
