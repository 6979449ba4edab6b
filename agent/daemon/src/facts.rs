//! What the agent wants to know of Nodes and Pods, and the copy of its own node's facts that outlives the API server.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use skep_model::{Cidr4, IpCidr, Labels, NodeName};
use skep_runtime::Backoff;

/// What matters of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeFacts {
    /// When the Node was created, in seconds since 1970: of two nodes that claim the same, the older is believed.
    #[serde(default)]
    pub(crate) created: i64,
    /// Internal addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// Pod ranges.
    pub(crate) ranges: Vec<IpCidr>,
}

impl NodeFacts {
    /// Reads a Node; texts that do not parse are left out.
    pub(crate) fn of(node: &Node) -> Self {
        let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let internal = addresses.filter(|address| address.type_ == "InternalIP");
        let spec = node.spec.as_ref();
        let listed = spec.and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
        let single = spec.and_then(|spec| spec.pod_cidr.clone());
        let ranges = if listed.is_empty() { single.into_iter().collect() } else { listed };
        let created = node.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second());
        NodeFacts {
            created,
            addresses: internal.filter_map(|address| address.address.parse().ok()).collect(),
            ranges: ranges.iter().filter_map(|range| range.parse().ok()).collect(),
        }
    }

    /// First IPv4 address.
    pub(crate) fn address_v4(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        })
    }

    /// First IPv4 range.
    pub(crate) fn range_v4(&self) -> Option<Cidr4> {
        self.ranges.iter().find_map(|range| match range {
            IpCidr::V4(range) => Some(*range),
            IpCidr::V6(_) => None,
        })
    }
}

/// What matters of a Pod of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodFacts {
    /// Labels.
    pub(crate) labels: Labels,
    /// Service account.
    pub(crate) service_account: String,
}

impl PodFacts {
    /// Reads a Pod.
    pub(crate) fn of(pod: &Pod) -> Self {
        PodFacts {
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            service_account: pod
                .spec
                .as_ref()
                .and_then(|spec| spec.service_account_name.clone())
                .unwrap_or_default(),
        }
    }
}

/// This node, as far as the data path needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnNode {
    /// Underlay address.
    pub(crate) node_ip: Ipv4Addr,
    /// Pod range.
    pub(crate) range: Cidr4,
}

impl OwnNode {
    /// From the Node object, an explicit address winning over it; `None` while either fact is missing.
    pub(crate) fn of(facts: &NodeFacts, node_ip: Option<Ipv4Addr>) -> Option<Self> {
        Some(OwnNode { node_ip: node_ip.or_else(|| facts.address_v4())?, range: facts.range_v4()? })
    }

    /// The node's address in its own pod range.
    pub(crate) fn gateway(&self) -> Option<Ipv4Addr> {
        self.range.nth(1)
    }
}

/// The own node's facts: from the API server, else from the copy of an earlier run, so that a restart needs no API.
pub(crate) async fn own_node(
    client: &Client,
    name: &NodeName,
    node_ip: Option<Ipv4Addr>,
    state_dir: &Path,
) -> OwnNode {
    let copy = state_dir.join("node.json");
    let nodes: Api<Node> = Api::all(client.clone());
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let mut waiting_said = false;
    loop {
        match tokio::time::timeout(Duration::from_secs(3), nodes.get(name.as_str())).await {
            Ok(Ok(node)) => {
                let facts = NodeFacts::of(&node);
                if let Some(own) = OwnNode::of(&facts, node_ip) {
                    save(&copy, &facts);
                    return own;
                }
                if !std::mem::replace(&mut waiting_said, true) {
                    tracing::info!(node = %name, "waiting for the node's pod range and address");
                }
            }
            Ok(Err(error)) => tracing::warn!(node = %name, %error, "cannot read the own node"),
            Err(_) => tracing::warn!(node = %name, "the API server does not answer"),
        }
        if let Some(own) = load(&copy).and_then(|facts| OwnNode::of(&facts, node_ip)) {
            tracing::info!("going on with the node's facts of an earlier run");
            return own;
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// Keeps a copy for a restart without API server. Best effort: the copy only saves waiting.
pub(crate) fn save(copy: &Path, facts: &NodeFacts) {
    let write = || -> io::Result<()> {
        fs::create_dir_all(copy.parent().unwrap_or(Path::new("/")))?;
        let staging: PathBuf = copy.with_extension("tmp");
        fs::write(&staging, serde_json::to_vec(facts)?)?;
        fs::rename(&staging, copy)
    };
    if let Err(error) = write() {
        tracing::warn!(path = %copy.display(), %error, "cannot keep a copy of the node's facts");
    }
}

fn load(copy: &Path) -> Option<NodeFacts> {
    serde_json::from_slice(&fs::read(copy).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(json: serde_json::Value) -> Node {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_node_without_a_range_is_not_usable_yet() {
        let address = serde_json::json!([{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.89.0.11"}]);
        let bare =
            node(serde_json::json!({"metadata": {"name": "n"}, "status": {"addresses": address.clone()}}));
        assert_eq!(OwnNode::of(&NodeFacts::of(&bare), None), None);
        let whole = node(serde_json::json!({
            "metadata": {"name": "n"}, "spec": {"podCIDR": "10.244.3.0/24"}, "status": {"addresses": address},
        }));
        let own = OwnNode::of(&NodeFacts::of(&whole), None).unwrap();
        assert_eq!((own.node_ip, own.gateway()), ([10, 89, 0, 11].into(), Some([10, 244, 3, 1].into())));
    }

    #[test]
    fn the_copy_survives() {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("state/node.json");
        let facts = NodeFacts {
            created: 7,
            addresses: vec![[10, 0, 0, 1].into()],
            ranges: vec!["10.244.0.0/24".parse().unwrap()],
        };
        save(&copy, &facts);
        assert_eq!(load(&copy), Some(facts));
    }
}
