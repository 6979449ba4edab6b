//! Taints: hard ones rule nodes out, soft ones make them less welcome.

use crate::framework::{Cycle, Filter, Interest, Rejection, Score};
use crate::node_info::NodeInfo;
use crate::placement::{first_untolerated, tolerates};
use crate::plugins::scale;

/// Filter and score: `spec.taints` against `spec.tolerations`.
pub struct TaintToleration;

impl Filter for TaintToleration {
    fn pre_filter(&self, _cycle: &mut Cycle<'_>) -> Interest {
        Interest::Ask
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
        let found = first_untolerated(node.taints(), &cycle.pod.tolerations, &["NoSchedule", "NoExecute"]);
        found.map_or(Ok(()), |(index, _)| Err(Rejection::Taint(index)))
    }
}

impl Score for TaintToleration {
    fn weight(&self) -> i64 {
        3
    }

    fn pre_score(&self, cycle: &mut Cycle<'_>, feasible: &[usize]) -> Interest {
        let soft = |index: &usize| {
            let taints = cycle.cache.nodes()[*index].taints();
            taints.iter().any(|taint| taint.effect == "PreferNoSchedule")
        };
        if feasible.iter().any(soft) { Interest::Ask } else { Interest::Skip }
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        let soft = node.taints().iter().filter(|taint| taint.effect == "PreferNoSchedule");
        let unborne = soft.filter(|taint| !cycle.pod.tolerations.iter().any(|bears| tolerates(bears, taint)));
        i64::try_from(unborne.count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, _cycle: &Cycle<'_>, scores: &mut [i64]) {
        scale(scores, true);
    }
}
