//! Pod ranges of nodes: cuts `spec.podCIDR` from the cluster CIDR, one block a node, never two nodes one block.

mod controller;
mod plan;

pub(crate) use controller::NodeIpamController;
