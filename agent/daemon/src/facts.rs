//! What the agent wants to know of Nodes and Pods, and the copy of its own node's facts that outlives the API server.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use skep_model::{Address, Cidr, IpCidr, Labels, NodeName};
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

/// What the command line says of the own node: addresses that win over the Node object's, and the cluster's families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    /// Underlay addresses.
    pub(crate) node_ips: Vec<IpAddr>,
    /// Whether the cluster has IPv4.
    pub(crate) v4: bool,
    /// Whether the cluster has IPv6.
    pub(crate) v6: bool,
}

impl Given {
    /// The own node in every family of the cluster; `None` while a fact is missing.
    pub(crate) fn own(&self, facts: &NodeFacts) -> Option<OwnNode> {
        let v4 = if self.v4 { Some(self.family(facts)?) } else { None };
        let v6 = if self.v6 { Some(self.family(facts)?) } else { None };
        (v4.is_some() || v6.is_some()).then_some(OwnNode { v4, v6 })
    }

    fn family<A: Address>(&self, facts: &NodeFacts) -> Option<OwnFamily<A>> {
        let node_ip = self.node_ips.iter().chain(&facts.addresses).find_map(|ip| A::from_ip(*ip))?;
        let narrow = |range: &IpCidr| Cidr::new(A::from_ip(range.network())?, range.length());
        Some(OwnFamily { node_ip, range: facts.ranges.iter().find_map(narrow)? })
    }
}

/// This node in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnFamily<A> {
    /// Underlay address.
    pub(crate) node_ip: A,
    /// Pod range.
    pub(crate) range: Cidr<A>,
}

impl<A: Address> OwnFamily<A> {
    /// The node's address in its own pod range.
    pub(crate) fn gateway(&self) -> A {
        self.range.nth(1).unwrap_or(self.range.network())
    }
}

/// This node, as far as the data path needs it: in at least one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnNode {
    /// In IPv4.
    pub(crate) v4: Option<OwnFamily<Ipv4Addr>>,
    /// In IPv6.
    pub(crate) v6: Option<OwnFamily<Ipv6Addr>>,
}

impl OwnNode {
    /// Underlay addresses; the first one is the tunnel's end.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.map(|own| own.node_ip.into());
        v4.into_iter().chain(self.v6.map(|own| own.node_ip.into()))
    }

    /// Pod ranges.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = IpCidr> {
        let v4 = self.v4.map(|own| IpCidr::V4(own.range));
        v4.into_iter().chain(self.v6.map(|own| IpCidr::V6(own.range)))
    }

    /// Addresses of the node in its own pod ranges.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.map(|own| own.gateway().into());
        v4.into_iter().chain(self.v6.map(|own| own.gateway().into()))
    }

    /// The pod ranges with commas between.
    pub(crate) fn ranges_text(&self) -> String {
        self.ranges().map(|range| range.to_string()).collect::<Vec<_>>().join(",")
    }
}

/// The own node's facts: from the API server, else from the copy of an earlier run, so that a restart needs no API.
pub(crate) async fn own_node(client: &Client, name: &NodeName, given: &Given, state_dir: &Path) -> OwnNode {
    let copy = state_dir.join("node.json");
    let nodes: Api<Node> = Api::all(client.clone());
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let mut waiting_said = false;
    loop {
        match tokio::time::timeout(Duration::from_secs(3), nodes.get(name.as_str())).await {
            Ok(Ok(node)) => {
                let facts = NodeFacts::of(&node);
                if let Some(own) = given.own(&facts) {
                    save(&copy, &facts);
                    return own;
                }
                if !std::mem::replace(&mut waiting_said, true) {
                    tracing::info!(node = %name, "waiting for the node's pod range and address of each family");
                }
            }
            Ok(Err(error)) => tracing::warn!(node = %name, %error, "cannot read the own node"),
            Err(_) => tracing::warn!(node = %name, "the API server does not answer"),
        }
        if let Some(own) = load(&copy).and_then(|facts| given.own(&facts)) {
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

    fn ipv4() -> Given {
        Given { v4: true, ..Given::default() }
    }

    fn node(json: serde_json::Value) -> Node {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_node_without_a_range_is_not_usable_yet() {
        let address = serde_json::json!([{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.89.0.11"}]);
        let bare =
            node(serde_json::json!({"metadata": {"name": "n"}, "status": {"addresses": address.clone()}}));
        assert_eq!(ipv4().own(&NodeFacts::of(&bare)), None);
        let whole = node(serde_json::json!({
            "metadata": {"name": "n"}, "spec": {"podCIDR": "10.244.3.0/24"}, "status": {"addresses": address},
        }));
        let own = ipv4().own(&NodeFacts::of(&whole)).unwrap();
        assert_eq!(own.addresses().collect::<Vec<_>>(), [IpAddr::from([10, 89, 0, 11])]);
        assert_eq!(own.gateways().collect::<Vec<_>>(), [IpAddr::from([10, 244, 3, 1])]);
    }

    #[test]
    fn a_cluster_of_two_families_needs_the_facts_of_both() {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let mut facts = NodeFacts {
            created: 0,
            addresses: vec!["fd00:89::11".parse().unwrap(), [10, 89, 0, 11].into()],
            ranges: parse(&["10.244.3.0/24"]),
        };
        let dual = Given { node_ips: vec![[10, 89, 0, 99].into()], v4: true, v6: true };
        assert_eq!(dual.own(&facts), None);
        facts.ranges.push("fd00:244:0:3::/64".parse().unwrap());
        let own = dual.own(&facts).unwrap();
        assert_eq!(own.ranges_text(), "10.244.3.0/24,fd00:244:0:3::/64");
        assert_eq!(own.addresses().next(), Some([10, 89, 0, 99].into()));
        assert_eq!(own.gateways().last(), Some("fd00:244:0:3::1".parse().unwrap()));
        let only = Given { v4: false, ..dual }.own(&facts).unwrap();
        assert_eq!(only.addresses().collect::<Vec<_>>(), ["fd00:89::11".parse::<IpAddr>().unwrap()]);
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

#[cfg(test)]
impl OwnNode {
    /// A node of a cluster without IPv6.
    pub(crate) fn v4(node_ip: Ipv4Addr, range: Cidr<Ipv4Addr>) -> Self {
        OwnNode { v4: Some(OwnFamily { node_ip, range }), v6: None }
    }
}
