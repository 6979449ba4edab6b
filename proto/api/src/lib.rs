//! Kubernetes objects and the semantics of their values, shared by every part that speaks to the API. Pure, no I/O.
//!
//! | module | owns |
//! |---|---|
//! | [`quantity`] | resource quantities: parse, compare, add, canonical form |
//! | [`selector`] | label and field selectors: parse, match, write |
//! | [`int_or_string`] | numbers that may be given as a share |
//! | [`time`] | RFC 3339 in the two precisions the API uses, and ages as people read them |
//! | [`load_balancer_ip_pool`] | `LoadBalancerIPPool`, the addresses of Services, and the names by which Services ask for them |
//! | [`l2_announcement_policy`] | `L2AnnouncementPolicy`, who answers for these addresses on the local network |
//! | [`node_endpoints`] | `NodeEndpoints`, the custom resource by which nodes tell each other their pods |
//!
//! [`k8s_openapi`] is re-exported, so that all parts share one version of the built-in types.

pub mod int_or_string;
pub mod l2_announcement_policy;
pub mod load_balancer_ip_pool;
pub mod node_endpoints;
pub mod quantity;
pub mod selector;
pub mod time;

pub use k8s_openapi;
pub use l2_announcement_policy::{L2AnnouncementPolicy, L2AnnouncementPolicySpec};
pub use load_balancer_ip_pool::{IpBlock, LoadBalancerIPPool, LoadBalancerIPPoolSpec};
pub use node_endpoints::{NodeEndpoints, NodeEndpointsSpec, PodEndpoint};
pub use quantity::Quantity;
pub use selector::{FieldSelector, LabelSelector};

/// Every custom resource definition of ours.
#[must_use]
pub fn definitions()
-> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> {
    vec![
        node_endpoints::definition(),
        load_balancer_ip_pool::definition(),
        l2_announcement_policy::definition(),
    ]
}
