//! Nodes whose CPU and memory fill up alike are better: neither is left over.

use crate::framework::{Cycle, Interest, MAX_SCORE, Score};
use crate::node_info::NodeInfo;

/// Score: balanced allocation.
pub struct BalancedAllocation;

impl Score for BalancedAllocation {
    fn weight(&self) -> i64 {
        1
    }

    fn pre_score(&self, cycle: &mut Cycle<'_>, _feasible: &[usize]) -> Interest {
        let asked = &cycle.pod.requests;
        if asked.milli_cpu == 0 && asked.memory == 0 { Interest::Skip } else { Interest::Ask }
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        // In thousandths of what the node has; two shares deviate from their mean by half their difference.
        let share = |used: i64, has: i64| if has <= 0 { 1000 } else { (used * 1000 / has).min(1000) };
        let (asked, used, has) = (&cycle.pod.requests, &node.requested, &node.allocatable);
        let cpu = share(used.milli_cpu + asked.milli_cpu, has.milli_cpu);
        let memory = share(used.memory.saturating_add(asked.memory) >> 10, has.memory >> 10);
        (1000 - (cpu - memory).abs() / 2) * MAX_SCORE / 1000
    }
}
