//! Nodes that have the pod's images already start it sooner.

use crate::framework::{Cycle, Interest, MAX_SCORE, Score};
use crate::node_info::NodeInfo;

const MEBIBYTE: i64 = 1024 * 1024;
/// Below this many bytes an image's presence does not matter.
const SMALLEST: i64 = 23 * MEBIBYTE;
/// Above this many bytes a container more presence does not count.
const LARGEST: i64 = 1000 * MEBIBYTE;

/// Score: images present.
pub struct ImageLocality;

impl Score for ImageLocality {
    fn weight(&self) -> i64 {
        1
    }

    fn pre_score(&self, cycle: &mut Cycle<'_>, feasible: &[usize]) -> Interest {
        let known = |index: &usize| !cycle.cache.nodes()[*index].images.is_empty();
        if feasible.iter().any(known) { Interest::Ask } else { Interest::Skip }
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        let containers = cycle.pod.pod.spec.iter().flat_map(|spec| &spec.containers);
        let (mut present, mut count) = (0, 0);
        for container in containers {
            count += 1;
            let image = container.image.as_deref().unwrap_or_default();
            present += node.images.get(image).copied().unwrap_or(0);
        }
        let largest = LARGEST * count.max(1);
        MAX_SCORE * (present.clamp(SMALLEST, largest) - SMALLEST) / (largest - SMALLEST)
    }
}
