//! Node selector and node affinity.

use crate::framework::{Cycle, Filter, Interest, Rejection, Score};
use crate::node_info::NodeInfo;
use crate::plugins::scale;

/// Filter and score: `spec.nodeSelector`, `spec.affinity.nodeAffinity`.
pub struct NodeAffinity;

impl Filter for NodeAffinity {
    fn pre_filter(&self, cycle: &mut Cycle<'_>) -> Interest {
        if cycle.pod.nodes.is_empty() { Interest::Skip } else { Interest::Ask }
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
        if cycle.pod.nodes.matches(&node.name, node.labels()) { Ok(()) } else { Err(Rejection::NodeAffinity) }
    }
}

impl Score for NodeAffinity {
    fn weight(&self) -> i64 {
        2
    }

    fn pre_score(&self, cycle: &mut Cycle<'_>, _feasible: &[usize]) -> Interest {
        if cycle.pod.preferred_nodes.is_empty() { Interest::Skip } else { Interest::Ask }
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        let met =
            cycle.pod.preferred_nodes.iter().filter(|(_, term)| term.matches(&node.name, node.labels()));
        met.map(|(weight, _)| weight).sum()
    }

    fn normalize(&self, _cycle: &Cycle<'_>, scores: &mut [i64]) {
        scale(scores, false);
    }
}
