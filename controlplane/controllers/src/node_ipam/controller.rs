//! The shell of the pod range allocator.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;
use skep_informer::{Change, EventType, ObjectKey, Outcome, WorkQueue, work};
use skep_model::IpCidr;

use super::plan::{Blocks, Tables};
use crate::context::Context;
use crate::error::{ControllerError, unless_gone};

/// Gives each node its pod range of each family.
pub(crate) struct NodeIpamController {
    context: Arc<Context>,
    queue: Arc<WorkQueue<ObjectKey>>,
    tables: Arc<Mutex<Tables>>,
}

impl NodeIpamController {
    /// Registers for nodes. Their ranges are recorded as they are listed, before the first allocation.
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let config = &context.config;
        let blocks = |range: IpCidr| Blocks::new(range, config.node_mask(range.family()));
        let tables = Arc::new(Mutex::new(Tables::new(config.cluster_cidr.iter().map(blocks))));
        let (sink, table) = (queue.clone(), tables.clone());
        context.informers.nodes.on_change(move |change| {
            let node = change.latest();
            if let Change::Deleted(node) = change {
                table.lock().release(&node.name_any());
                return;
            }
            for range in ranges(node) {
                if let Some(holder) = table.lock().occupy(&node.name_any(), range) {
                    tracing::error!(node = node.name_any(), %holder, %range, "pod range is held by two nodes");
                }
            }
            if ranges(node).is_empty() {
                sink.add(ObjectKey::of(&**node));
            }
        });
        Self { context: context.clone(), queue, tables }
    }

    /// Works until dropped. One worker: the table is the bottleneck anyway.
    pub(crate) async fn run(self) {
        work("node-ipam", &self.queue, 1, |key| self.reconcile(key)).await;
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ControllerError> {
        let store = self.context.informers.nodes.store();
        let Some(node) = store.get(&key).filter(|node| ranges(node).is_empty()) else {
            return Ok(Outcome::Done);
        };
        let allocated = self.tables.lock().allocate(&key.name);
        let Some(ranges) = allocated else {
            let recorder = &self.context.recorder;
            recorder.publish(
                &*node,
                EventType::Warning,
                "CIDRNotAvailable",
                "No pod range is left for this node",
            );
            return Err(ControllerError::RangesExhausted(self.context.config.cluster_cidr.to_string()));
        };
        let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        let patch = json!({
            "metadata": {"uid": node.uid()},
            "spec": {"podCIDR": ranges.first(), "podCIDRs": ranges},
        });
        let api: kube::Api<Node> = self.context.cluster();
        unless_gone(api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        tracing::info!(node = key.name, ranges = ranges.join(","), "pod ranges allocated");
        Ok(Outcome::Done)
    }
}

/// The pod ranges a node declares.
fn ranges(node: &Node) -> Vec<IpCidr> {
    let Some(spec) = node.spec.as_ref() else { return Vec::new() };
    let many = spec.pod_cidrs.iter().flatten();
    many.chain(spec.pod_cidr.iter()).filter_map(|text| text.parse().ok()).collect()
}
