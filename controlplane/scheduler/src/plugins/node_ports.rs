//! Ports of the node that pods take for themselves.

use crate::framework::{Cycle, Filter, Interest, Rejection};
use crate::node_info::NodeInfo;

/// Filter: `hostPort`.
pub struct NodePorts;

impl Filter for NodePorts {
    fn pre_filter(&self, cycle: &mut Cycle<'_>) -> Interest {
        if cycle.pod.host_ports.is_empty() { Interest::Skip } else { Interest::Ask }
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
        let taken = cycle.pod.host_ports.iter().any(|port| node.ports.iter().any(|own| own.conflicts(port)));
        if taken { Err(Rejection::Ports) } else { Ok(()) }
    }
}
