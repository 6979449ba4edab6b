//! Kubernetes objects and the semantics of their values, shared by every part that speaks to the API. Pure, no I/O.
//!
//! | module | owns |
//! |---|---|
//! | [`quantity`] | resource quantities: parse, compare, add, canonical form |
//! | [`selector`] | label and field selectors: parse, match, write |
//! | [`int_or_string`] | numbers that may be given as a share |
//! | [`time`] | RFC 3339 in the two precisions the API uses, and ages as people read them |
//! | [`node_endpoints`] | `NodeEndpoints`, the custom resource by which nodes tell each other their pods |
//!
//! [`k8s_openapi`] is re-exported, so that all parts share one version of the built-in types.

pub mod int_or_string;
pub mod node_endpoints;
pub mod quantity;
pub mod selector;
pub mod time;

pub use k8s_openapi;
pub use node_endpoints::{NodeEndpoints, NodeEndpointsSpec, PodEndpoint};
pub use quantity::Quantity;
pub use selector::{FieldSelector, LabelSelector};
