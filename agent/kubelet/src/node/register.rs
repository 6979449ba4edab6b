//! Registers the node and keeps its status current: at once when something changes, else every five minutes.

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerImage, Node, NodeCondition, NodeSpec, NodeStatus};
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use nix::sys::statvfs::statvfs;
use serde_json::{Value, json};
use skep_runtime::Backoff;

use super::{
    machine::{self, Machine},
    status::{self, Facts, Pressure},
};
use crate::{
    session::{CallError, bounded},
    shared::Shared,
};

const LOOK: Duration = Duration::from_secs(10);
const REPORT: Duration = Duration::from_secs(300);
const MOST_IMAGES: usize = 50;

/// The node's reporter.
#[derive(Debug)]
pub(crate) struct Reporter {
    shared: Arc<Shared>,
    machine: Machine,
    runtime_version: String,
    labels: BTreeMap<String, String>,
}

impl Reporter {
    /// A reporter for this machine.
    pub(crate) fn new(shared: Arc<Shared>, machine: Machine, runtime_version: String) -> Self {
        let name = shared.config.node_name.clone();
        let mut labels = BTreeMap::from([
            ("kubernetes.io/hostname".to_owned(), name),
            ("kubernetes.io/os".to_owned(), "linux".to_owned()),
            ("kubernetes.io/arch".to_owned(), machine.architecture.to_owned()),
            ("beta.kubernetes.io/os".to_owned(), "linux".to_owned()),
            ("beta.kubernetes.io/arch".to_owned(), machine.architecture.to_owned()),
        ]);
        labels.extend(shared.config.node_labels.iter().cloned());
        Self { shared, machine, runtime_version, labels }
    }

    fn api(&self) -> Api<Node> {
        Api::all(self.shared.session.client())
    }

    /// Registers, trying until the API takes it.
    pub(crate) async fn register(&self) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(7));
        loop {
            match self.try_register().await {
                Ok(_) => {
                    tracing::info!(node = self.shared.config.node_name, "node registered");
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "the node is not registered yet");
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    async fn try_register(&self) -> Result<Node, CallError> {
        let node = Node {
            metadata: ObjectMeta {
                name: Some(self.shared.config.node_name.clone()),
                labels: Some(self.labels.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec::default()),
            status: Some(self.status(&[]).await),
        };
        match bounded(self.api().create(&PostParams::default(), &node)).await {
            Err(error) if error.code() == Some(409) => {
                let patch = Patch::Merge(json!({"metadata": {"labels": self.labels}}));
                bounded(self.api().patch(&self.shared.config.node_name, &PatchParams::default(), &patch))
                    .await
            }
            other => other,
        }
    }

    /// Reports for ever: what changed here, and what others wrote over while this node could not be heard.
    pub(crate) async fn run(self) {
        let mut told: Option<(Value, tokio::time::Instant)> = None;
        let mut runtime = self.shared.network.clone();
        loop {
            let seen = self.seen().await;
            let known = seen.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
            let status = self.status(&known).await;
            let shape = without_heartbeat(&status);
            let disputed = seen.as_ref().is_some_and(|seen| !status::agrees(seen, &status));
            let due = told.as_ref().is_none_or(|(last, at)| *last != shape || at.elapsed() > REPORT);
            if due || disputed {
                match self.report(&status).await {
                    Ok(()) => told = Some((shape, tokio::time::Instant::now())),
                    Err(error) => tracing::warn!(%error, "the node's status was not taken"),
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                changed = runtime.changed() => if changed.is_err() { return },
            }
        }
    }

    /// The status as the API has it, if it answers. A node that somebody deleted is registered again.
    async fn seen(&self) -> Option<NodeStatus> {
        match bounded(self.api().get_opt(&self.shared.config.node_name)).await {
            Ok(Some(node)) => node.status,
            Ok(None) => {
                let again = self.try_register().await;
                if let Err(error) = &again {
                    tracing::warn!(%error, "the node is gone from the API and could not be registered again");
                }
                again.ok()?.status
            }
            Err(error) => {
                tracing::debug!(%error, "the node cannot be read");
                None
            }
        }
    }

    async fn report(&self, status: &NodeStatus) -> Result<(), CallError> {
        let name = &self.shared.config.node_name;
        let patch = Patch::Strategic(json!({"status": as_patch(status)}));
        bounded(self.api().patch_status(name, &PatchParams::default(), &patch)).await.map(|_| ())
    }

    async fn status(&self, known: &[NodeCondition]) -> NodeStatus {
        let runtime = self.shared.network.borrow().clone();
        let facts = Facts {
            name: &self.shared.config.node_name,
            ips: &self.shared.node_ips,
            machine: &self.machine,
            runtime_version: &self.runtime_version,
            runtime: &runtime,
            pressure: self.pressure(),
            images: self.images().await,
            port: self.shared.config.port,
        };
        status::status(facts, known, Timestamp::now())
    }

    fn pressure(&self) -> Pressure {
        const LEAST_MEMORY_KIB: u64 = 100 * 1024;
        let free = machine::available_kib(&fs::read_to_string("/proc/meminfo").unwrap_or_default());
        let disk = statvfs(self.shared.config.root_dir.as_path())
            .map(|s| s.blocks_available() * 10 < s.blocks())
            .unwrap_or(false);
        Pressure { memory: free < LEAST_MEMORY_KIB, disk, pids: false }
    }

    async fn images(&self) -> Vec<ContainerImage> {
        let mut images = match self.shared.cri.images().await {
            Ok(images) => images,
            Err(error) => {
                tracing::debug!(%error, "images not listed");
                return Vec::new();
            }
        };
        images.sort_by_key(|i| std::cmp::Reverse((i.size, i.id.clone())));
        images.truncate(MOST_IMAGES);
        let of = |image: skep_wire::cri::v1::Image| ContainerImage {
            names: Some(image.repo_digests.into_iter().chain(image.repo_tags).collect()),
            size_bytes: i64::try_from(image.size).ok(),
        };
        images.into_iter().map(of).collect()
    }
}

/// The status as a strategic merge patch. Addresses are merged by their type, and a node of two families has two of one
/// type: the list is replaced as a whole.
fn as_patch(status: &NodeStatus) -> Value {
    let mut patch = serde_json::to_value(status).unwrap_or_default();
    if let Some(addresses) = patch.get_mut("addresses").and_then(Value::as_array_mut) {
        addresses.push(json!({"$patch": "replace"}));
    }
    patch
}

fn without_heartbeat(status: &NodeStatus) -> Value {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
        condition.last_transition_time = None;
    }
    serde_json::to_value(status).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_type_do_not_swallow_each_other() {
        let node = json!({"addresses": [
            {"type": "InternalIP", "address": "10.89.0.11"},
            {"type": "InternalIP", "address": "fd00:89::11"},
        ]});
        let patch = as_patch(&serde_json::from_value(node).unwrap());
        assert_eq!(patch["addresses"].as_array().unwrap().len(), 3);
        assert_eq!(patch["addresses"][2], json!({"$patch": "replace"}));
    }
}
