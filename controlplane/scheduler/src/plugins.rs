//! The rules and preferences, one file each.

pub mod balanced;
pub mod fit;
pub mod image_locality;
pub mod node_affinity;
pub mod node_name;
pub mod node_ports;
pub mod pod_affinity;
pub mod taints;
pub mod topology_spread;
pub mod unschedulable;

use crate::framework::{Filter, Score};

/// The filters of the default scheduler, cheap ones first.
pub fn default_filters() -> Vec<Box<dyn Filter>> {
    vec![
        Box::new(unschedulable::NodeUnschedulable),
        Box::new(node_name::NodeName),
        Box::new(taints::TaintToleration),
        Box::new(node_affinity::NodeAffinity),
        Box::new(node_ports::NodePorts),
        Box::new(fit::ResourcesFit),
        Box::new(topology_spread::TopologySpread),
        Box::new(pod_affinity::PodAffinity),
    ]
}

/// The scores of the default scheduler.
pub fn default_scores() -> Vec<Box<dyn Score>> {
    vec![
        Box::new(taints::TaintToleration),
        Box::new(node_affinity::NodeAffinity),
        Box::new(topology_spread::TopologySpread),
        Box::new(pod_affinity::PodAffinity),
        Box::new(fit::ResourcesFit),
        Box::new(balanced::BalancedAllocation),
        Box::new(image_locality::ImageLocality),
    ]
}

/// Scales scores so that the highest becomes [`MAX_SCORE`](crate::framework::MAX_SCORE); `reverse` makes low ones good.
pub(crate) fn scale(scores: &mut [i64], reverse: bool) {
    let max_score = crate::framework::MAX_SCORE;
    let highest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if highest == 0 { 0 } else { *score * max_score / highest };
        *score = if reverse { max_score - scaled } else { scaled };
    }
}
