//! Whether a pod may be on a node at all: taints and tolerations, node selectors and node affinity.

mod node_affinity;
mod taints;

pub use node_affinity::{NodeMatcher, NodeTerm};
pub use taints::{first_untolerated, tolerates};
