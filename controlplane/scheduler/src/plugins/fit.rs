//! Resources: whether a pod fits, and how empty the node stays.

use crate::framework::{Cycle, Filter, Interest, MAX_SCORE, Rejection, Score, Shortage};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// Filter and score (least allocated): `resources.requests`.
pub struct ResourcesFit;

impl Filter for ResourcesFit {
    fn pre_filter(&self, _cycle: &mut Cycle<'_>) -> Interest {
        Interest::Ask
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
        let shortage = shortage(cycle.pod, node);
        if shortage.0 == 0 { Ok(()) } else { Err(Rejection::Shortage(shortage)) }
    }
}

/// What `node` is short of for `pod`.
pub fn shortage(pod: &PodInfo, node: &NodeInfo) -> Shortage {
    let (asked, used, has) = (&pod.requests, &node.requested, &node.allocatable);
    let mut bits = 0;
    let mut check = |bit: u64, asked: i64, used: i64, has: i64| {
        if asked > 0 && asked > has - used {
            bits |= bit;
        }
    };
    check(Shortage::CPU, asked.milli_cpu, used.milli_cpu, has.milli_cpu);
    check(Shortage::MEMORY, asked.memory, used.memory, has.memory);
    check(Shortage::EPHEMERAL, asked.ephemeral_storage, used.ephemeral_storage, has.ephemeral_storage);
    for (index, (name, amount)) in (0u32..60).zip(&asked.scalars) {
        check(1 << (Shortage::SCALARS + index), *amount, used.scalar(name), has.scalar(name));
    }
    if node.pods.len() + 1 > node.max_pods {
        bits |= Shortage::PODS;
    }
    Shortage(bits)
}

impl Score for ResourcesFit {
    fn weight(&self) -> i64 {
        1
    }

    fn pre_score(&self, _cycle: &mut Cycle<'_>, _feasible: &[usize]) -> Interest {
        Interest::Ask
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        let free =
            |used: i64, has: i64| if has <= 0 || used > has { 0 } else { (has - used) * MAX_SCORE / has };
        let cpu = free(node.weight.0 + cycle.pod.weight.0, node.allocatable.milli_cpu);
        let memory = free(node.weight.1 + cycle.pod.weight.1, node.allocatable.memory);
        (cpu + memory) / 2
    }
}
