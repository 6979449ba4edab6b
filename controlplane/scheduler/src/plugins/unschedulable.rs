//! Cordoned nodes take only pods that bear it.

use k8s_openapi::api::core::v1::Taint;

use crate::framework::{Cycle, Filter, Interest, Rejection};
use crate::node_info::NodeInfo;
use crate::placement::tolerates;

/// Filter: `spec.unschedulable`.
pub struct NodeUnschedulable;

impl Filter for NodeUnschedulable {
    fn pre_filter(&self, cycle: &mut Cycle<'_>) -> Interest {
        let taint = Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            effect: "NoSchedule".into(),
            ..Taint::default()
        };
        let borne = cycle.pod.tolerations.iter().any(|toleration| tolerates(toleration, &taint));
        if borne { Interest::Skip } else { Interest::Ask }
    }

    fn filter(&self, _cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
        if node.is_unschedulable() { Err(Rejection::Unschedulable) } else { Ok(()) }
    }
}
