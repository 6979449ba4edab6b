//! What the agent knows of the cluster, and what follows from it. Pure: events in, desired state out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use skep_datapath::{Peer, PeerKind};
use skep_loadbalancer::{Changes, LoadBalancer};
use skep_model::{DnsView, FrontendAddress, FrontendId, IpCidr, NamespacedName, NodeName};

use crate::{
    api::{Change, Event},
    claims::{self, Refusal},
    facts::{NodeFacts, OwnNode, PodFacts},
};

/// The lists that must have been seen in full before anything may be pruned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Listed {
    services: bool,
    slices: bool,
    namespaces: bool,
    nodes: bool,
}

/// The cluster as this node sees it.
#[derive(Debug)]
pub(crate) struct Cluster {
    name: NodeName,
    own: OwnNode,
    own_addresses: BTreeSet<IpAddr>,
    balancer: LoadBalancer,
    nodes: BTreeMap<String, NodeFacts>,
    namespaces: BTreeSet<String>,
    pods: BTreeMap<NamespacedName, PodFacts>,
    peers: BTreeMap<String, Vec<(IpAddr, NamespacedName)>>,
    listed: Listed,
}

/// What an event touched besides Services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    /// The ipcache.
    pub(crate) ipcache: bool,
    /// Labels of this node's pods.
    pub(crate) pods: bool,
    /// Names of pods elsewhere.
    pub(crate) names: bool,
    /// This node's own facts differ from those that the data path was opened with.
    pub(crate) own_node: bool,
}

impl Touched {
    /// What either touched.
    pub(crate) fn and(self, other: Touched) -> Touched {
        Touched {
            ipcache: self.ipcache || other.ipcache,
            pods: self.pods || other.pods,
            names: self.names || other.names,
            own_node: self.own_node || other.own_node,
        }
    }
}

impl Cluster {
    /// Knows nothing but its own node, and the numbers that an earlier process gave.
    pub(crate) fn new(
        name: NodeName,
        own: OwnNode,
        pinned: impl IntoIterator<Item = (FrontendAddress, FrontendId)>,
    ) -> Self {
        let mut balancer = LoadBalancer::new(name.as_str());
        balancer.adopt(pinned);
        Cluster {
            name,
            own,
            own_addresses: BTreeSet::new(),
            balancer,
            nodes: BTreeMap::new(),
            namespaces: BTreeSet::new(),
            pods: BTreeMap::new(),
            peers: BTreeMap::new(),
            listed: Listed::default(),
        }
    }

    /// Takes in an event.
    pub(crate) fn handle(&mut self, event: Event, node_ip: Option<std::net::Ipv4Addr>) -> Touched {
        let mut touched = Touched::default();
        match event {
            Event::Service(change) => self.handle_service(change),
            Event::Slice(change) => self.handle_slice(change),
            Event::Namespace(change) => {
                self.listed.namespaces |= matches!(change, Change::Replace(_));
                match change {
                    Change::Upsert(name, ()) => drop(self.namespaces.insert(name)),
                    Change::Remove(name) => drop(self.namespaces.remove(&name)),
                    Change::Replace(all) => {
                        self.namespaces = all.into_iter().map(|(name, ())| name).collect()
                    }
                }
            }
            Event::Node(change) => {
                let first = !self.listed.nodes && matches!(change, Change::Replace(_));
                self.listed.nodes |= first;
                // Heartbeats change Nodes all the time, but rarely what matters here.
                touched.ipcache = keep(&mut self.nodes, change) || first;
                let facts = self.nodes.get(self.name.as_str());
                let own = facts.and_then(|facts| OwnNode::of(facts, node_ip));
                touched.own_node = own.is_some_and(|own| own != self.own);
            }
            Event::Pod(change) => touched.pods = keep(&mut self.pods, change),
            Event::Peers(change) => touched.names = keep(&mut self.peers, change),
        }
        touched
    }

    fn handle_service(&mut self, change: Change<NamespacedName, skep_loadbalancer::Service>) {
        match change {
            Change::Upsert(_, service) => self.balancer.upsert_service(service),
            Change::Remove(name) => self.balancer.remove_service(&name),
            Change::Replace(all) => {
                self.listed.services = true;
                let kept: BTreeSet<_> = all.iter().map(|(name, _)| name.clone()).collect();
                let gone: Vec<_> =
                    self.balancer.services().filter(|name| !kept.contains(*name)).cloned().collect();
                gone.iter().for_each(|name| self.balancer.remove_service(name));
                all.into_iter().for_each(|(_, service)| self.balancer.upsert_service(service));
            }
        }
    }

    fn handle_slice(&mut self, change: Change<NamespacedName, skep_loadbalancer::Slice>) {
        match change {
            Change::Upsert(_, slice) => self.balancer.upsert_slice(slice),
            Change::Remove(name) => self.balancer.remove_slice(&name),
            Change::Replace(all) => {
                self.listed.slices = true;
                let kept: BTreeSet<_> = all.iter().map(|(name, _)| name.clone()).collect();
                let gone: Vec<_> =
                    self.balancer.slices().filter(|name| !kept.contains(*name)).cloned().collect();
                gone.iter().for_each(|name| self.balancer.remove_slice(name));
                all.into_iter().for_each(|(_, slice)| self.balancer.upsert_slice(slice));
            }
        }
    }

    /// What changed for Services since the last call. Nothing while half a list is known: a Service without its slices
    /// would lose the backends that an earlier process wrote.
    pub(crate) fn refresh(&mut self) -> Changes {
        if !self.services_known() {
            return Changes::default();
        }
        let mut changes = self.balancer.refresh();
        self.balancer.settle();
        if self.balancer.names().namespaces != self.namespaces {
            let names = self.balancer.set_namespaces(self.namespaces.clone());
            changes.names.namespaces = names.namespaces;
            changes.names.removed_namespaces = names.removed_namespaces;
        }
        changes
    }

    /// Whether Services and slices have been listed.
    pub(crate) fn services_known(&self) -> bool {
        self.listed.services && self.listed.slices
    }

    /// Whether DNS can be answered in full.
    pub(crate) fn names_known(&self) -> bool {
        self.services_known() && self.listed.namespaces
    }

    /// Whether nodes have been listed.
    pub(crate) fn nodes_known(&self) -> bool {
        self.listed.nodes
    }

    /// What DNS answers now.
    pub(crate) fn names(&self) -> &DnsView {
        self.balancer.names()
    }

    /// Labels and service accounts of this node's pods.
    pub(crate) fn pods(&self) -> &BTreeMap<NamespacedName, PodFacts> {
        &self.pods
    }

    /// How many nodes and pods elsewhere are known.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.nodes.len(), self.peers.values().map(Vec::len).sum())
    }

    /// Whether this node's own object is there.
    pub(crate) fn is_published(&self) -> bool {
        self.peers.contains_key(self.name.as_str())
    }

    /// Every pod of the cluster by address, for the log of drops.
    pub(crate) fn pod_names(&self) -> BTreeMap<IpAddr, NamespacedName> {
        self.peers.values().flatten().cloned().collect()
    }

    /// Addresses on this node's devices; true when that is news.
    pub(crate) fn set_own_addresses(&mut self, addresses: BTreeSet<IpAddr>) -> bool {
        let news = addresses != self.own_addresses;
        self.own_addresses = addresses;
        news
    }

    /// Addresses and ranges that nodes claim though they are others'.
    pub(crate) fn refused_claims(&self) -> BTreeSet<Refusal> {
        claims::remote_peers(&self.nodes, self.name.as_str()).1
    }

    /// What stands behind each prefix.
    pub(crate) fn ipcache(&self) -> BTreeMap<IpCidr, Peer> {
        let (mut rows, _) = claims::remote_peers(&self.nodes, self.name.as_str());
        // Last, so that no other node can claim what is this node's.
        rows.insert(IpCidr::V4(self.own.range), Peer::new(PeerKind::LocalPods));
        let given = [Some(IpAddr::V4(self.own.node_ip)), self.own.gateway().map(IpAddr::V4)];
        for address in given.into_iter().flatten().chain(self.own_addresses.iter().copied()) {
            if address.is_ipv4() {
                rows.insert(IpCidr::host(address), Peer::new(PeerKind::Host));
            }
        }
        rows
    }
}

/// Takes a change in; true when it is news.
fn keep<K: Ord, T: PartialEq>(known: &mut BTreeMap<K, T>, change: Change<K, T>) -> bool {
    match change {
        Change::Upsert(key, value) => {
            let news = known.get(&key) != Some(&value);
            known.insert(key, value);
            news
        }
        Change::Remove(key) => known.remove(&key).is_some(),
        Change::Replace(all) => {
            let all = all.into_iter().collect();
            let news = *known != all;
            *known = all;
            news
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> OwnNode {
        OwnNode { node_ip: [10, 89, 0, 11].into(), range: "10.244.0.0/24".parse().unwrap() }
    }

    fn facts(n: u8) -> NodeFacts {
        NodeFacts {
            addresses: vec![[10, 89, 0, 10 + n].into()],
            ranges: vec![format!("10.244.{}.0/24", n - 1).parse().unwrap()],
            created: i64::from(n),
        }
    }

    fn cluster() -> Cluster {
        Cluster::new("node-1".parse().unwrap(), own(), [])
    }

    #[test]
    fn other_nodes_are_tunnel_ends_and_the_own_node_is_the_host() {
        let mut cluster = cluster();
        let nodes = vec![("node-1".into(), facts(1)), ("node-2".into(), facts(2))];
        let touched = cluster.handle(Event::Node(Change::Replace(nodes)), None);
        assert!(touched.ipcache && !touched.own_node && cluster.nodes_known());
        let heartbeat = cluster.handle(Event::Node(Change::Upsert("node-2".into(), facts(2))), None);
        assert_eq!(heartbeat, Touched::default());
        let rows = cluster.ipcache();
        let kind = |text: &str| rows[&text.parse().unwrap()].kind;
        let far = [10, 89, 0, 12].into();
        assert_eq!(kind("10.244.1.0/24"), PeerKind::RemotePods(far));
        assert_eq!(kind("10.244.1.1/32"), PeerKind::RemoteNode(far));
        assert_eq!(kind("10.89.0.12/32"), PeerKind::RemoteNode(far));
        assert_eq!(kind("10.244.0.0/24"), PeerKind::LocalPods);
        assert_eq!(kind("10.89.0.11/32"), PeerKind::Host);
        assert_eq!(kind("10.244.0.1/32"), PeerKind::Host);
    }

    #[test]
    fn another_node_cannot_claim_this_nodes_addresses() {
        let mut cluster = cluster();
        let thief =
            NodeFacts { created: 9, addresses: vec![[10, 89, 0, 11].into()], ranges: facts(1).ranges };
        cluster.handle(Event::Node(Change::Upsert("thief".into(), thief)), None);
        let rows = cluster.ipcache();
        assert_eq!(rows[&"10.89.0.11/32".parse().unwrap()].kind, PeerKind::Host);
        assert_eq!(rows[&"10.244.0.0/24".parse().unwrap()].kind, PeerKind::LocalPods);
    }

    #[test]
    fn a_new_range_of_the_own_node_is_noticed() {
        let mut cluster = cluster();
        let touched = cluster.handle(Event::Node(Change::Upsert("node-1".into(), facts(3))), None);
        assert!(touched.own_node);
        let blank = NodeFacts::default();
        assert!(!cluster.handle(Event::Node(Change::Upsert("node-1".into(), blank)), None).own_node);
    }

    #[test]
    fn nothing_is_said_of_services_before_both_lists_are_in() {
        let mut cluster = cluster();
        cluster.handle(Event::Namespace(Change::Replace(vec![("default".into(), ())])), None);
        cluster.handle(Event::Service(Change::Replace(vec![])), None);
        assert!(cluster.refresh().is_empty() && !cluster.names_known());
        cluster.handle(Event::Slice(Change::Replace(vec![])), None);
        let changes = cluster.refresh();
        assert_eq!(changes.names.namespaces, ["default".to_owned()].into());
        assert!(cluster.names_known() && cluster.refresh().is_empty());
    }
}
