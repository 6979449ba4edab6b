//! A pod that names its node.

use crate::framework::{Cycle, Filter, Interest, Rejection};
use crate::node_info::NodeInfo;

/// Filter: `spec.nodeName`.
pub struct NodeName;

impl Filter for NodeName {
    fn pre_filter(&self, cycle: &mut Cycle<'_>) -> Interest {
        if cycle.pod.node_name.is_some() { Interest::Ask } else { Interest::Skip }
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
        match &cycle.pod.node_name {
            Some(name) if *name != node.name => Err(Rejection::NodeName),
            _ => Ok(()),
        }
    }
}
