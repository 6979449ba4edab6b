//! What the agent knows of the cluster, and what follows from it. Pure: events in, desired state out.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::SystemTime,
};

use skep_datapath::{Peer, PeerKind};
use skep_loadbalancer::{Changes, Context, LoadBalancer, Pinned, Settings};
use skep_model::{DnsChange, IpCidr, NamespacedName, NodeName};

use crate::{
    api::{Change, Event, SeenSlice},
    claims::{self, Refusal},
    facts::{Given, NodeFacts, OwnNode, PodFacts},
    options::balancing::Balancing,
    pod_names::PodNames,
    seen::{NodeSeen, NodeState, PodSeen},
};

/// Services that are computed at once: a cold start should not hold everything twice.
const ROUND: usize = 4096;

/// The lists that must have been seen in full before anything may be pruned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Listed {
    services: bool,
    slices: bool,
    namespaces: bool,
    nodes: bool,
    pods: bool,
}

/// The cluster as this node sees it.
#[derive(Debug)]
pub(crate) struct Cluster {
    name: NodeName,
    own: OwnNode,
    own_state: NodeState,
    own_addresses: BTreeSet<IpAddr>,
    balancing: Balancing,
    balancer: LoadBalancer,
    nodes: BTreeMap<String, NodeFacts>,
    owners: BTreeMap<IpAddr, String>,
    namespaces: DnsChange,
    known_namespaces: BTreeSet<String>,
    pods: BTreeMap<NamespacedName, PodFacts>,
    pod_names: PodNames,
    listed: Listed,
    /// When the slices changed that were taken in since the last refresh.
    since: Vec<SystemTime>,
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

/// The cluster's own ranges, for the load balancer.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterRanges {
    /// Of cluster IPs.
    pub(crate) services: Vec<IpCidr>,
    /// Of pods.
    pub(crate) pods: Vec<IpCidr>,
}

impl Cluster {
    /// Knows nothing but its own node, and what an earlier process wrote.
    pub(crate) fn new(
        name: NodeName,
        own: OwnNode,
        balancing: Balancing,
        ranges: ClusterRanges,
        pinned: Pinned,
    ) -> Self {
        let settings = Settings {
            maglev: balancing.maglev(),
            external_ranges: balancing.external_ip_ranges.clone(),
            service_ranges: ranges.services,
            pod_ranges: ranges.pods,
            direct_return: balancing.lb_mode == crate::options::balancing::Mode::Dsr,
        };
        let context = Context { node: name.to_string(), settings, ..Context::default() };
        let mut balancer = LoadBalancer::new(context);
        balancer.adopt(pinned);
        Cluster {
            name,
            own,
            own_state: NodeState::default(),
            own_addresses: BTreeSet::new(),
            balancing,
            balancer,
            nodes: BTreeMap::new(),
            owners: BTreeMap::new(),
            namespaces: DnsChange::default(),
            known_namespaces: BTreeSet::new(),
            pods: BTreeMap::new(),
            pod_names: PodNames::default(),
            listed: Listed::default(),
            since: Vec::new(),
        }
    }

    /// Takes in an event.
    pub(crate) fn handle(&mut self, event: Event, given: &Given) -> Touched {
        let mut touched = Touched::default();
        match event {
            Event::Service(change) => self.handle_service(change),
            Event::Slice(change) => self.handle_slice(change),
            Event::Namespace(change) => self.handle_namespace(change),
            Event::Node(change) => {
                touched.ipcache = self.handle_node(change);
                let facts = self.nodes.get(self.name.as_str());
                let own = facts.and_then(|facts| given.own(facts));
                touched.own_node = own.is_some_and(|own| own != self.own);
            }
            Event::Pod(change) => touched.pods = self.handle_pod(change),
            Event::Peers(change) => {
                self.pod_names.handle(change);
                touched.names = true;
            }
        }
        touched
    }

    fn handle_service(&mut self, change: Change<NamespacedName, skep_loadbalancer::Service>) {
        match change {
            Change::Upsert(_, service) => self.balancer.upsert_service(service),
            Change::Remove(name) => self.balancer.remove_service(&name),
            Change::Replace(all) => {
                self.listed.services = true;
                let kept: BTreeSet<_> = all.iter().map(|(name, _)| name).collect();
                let gone: Vec<_> =
                    self.balancer.services().filter(|name| !kept.contains(name)).cloned().collect();
                gone.iter().for_each(|name| self.balancer.remove_service(name));
                all.into_iter().for_each(|(_, service)| self.balancer.upsert_service(service));
            }
        }
    }

    fn handle_slice(&mut self, change: Change<NamespacedName, SeenSlice>) {
        match change {
            Change::Upsert(_, seen) => {
                self.since.push(seen.since);
                self.balancer.upsert_slice(seen.slice);
            }
            Change::Remove(name) => {
                self.since.push(SystemTime::now());
                self.balancer.remove_slice(&name);
            }
            Change::Replace(all) => {
                self.listed.slices = true;
                let kept: BTreeSet<_> = all.iter().map(|(name, _)| name).collect();
                let gone: Vec<_> =
                    self.balancer.slices().filter(|name| !kept.contains(name)).cloned().collect();
                gone.iter().for_each(|name| self.balancer.remove_slice(name));
                all.into_iter().for_each(|(_, seen)| self.balancer.upsert_slice(seen.slice));
            }
        }
    }

    fn handle_namespace(&mut self, change: Change<String, ()>) {
        let mut come = |name: String| {
            self.namespaces.removed_namespaces.remove(&name);
            self.known_namespaces.insert(name.clone());
            self.namespaces.namespaces.insert(name);
        };
        match change {
            Change::Upsert(name, ()) => come(name),
            Change::Remove(name) => {
                self.namespaces.namespaces.remove(&name);
                self.known_namespaces.remove(&name);
                self.namespaces.removed_namespaces.insert(name);
            }
            Change::Replace(all) => {
                self.listed.namespaces = true;
                let now: BTreeSet<String> = all.into_iter().map(|(name, ())| name).collect();
                let gone = self.known_namespaces.difference(&now).cloned();
                self.namespaces = DnsChange {
                    removed_namespaces: gone.collect(),
                    namespaces: now.clone(),
                    ..DnsChange::default()
                };
                self.known_namespaces = now;
            }
        }
    }

    /// Takes a change of a Node in; true when the ipcache may differ. Heartbeats change Nodes all the time, but rarely
    /// what matters here.
    fn handle_node(&mut self, change: Change<String, NodeSeen>) -> bool {
        let first = !self.listed.nodes && matches!(change, Change::Replace(_));
        self.listed.nodes |= first;
        let (facts, states) = split(change, |seen| (seen.facts, seen.state));
        if let Some(state) = state_of(states, self.name.as_str())
            && state != self.own_state
        {
            self.own_state = state;
            self.follow_node();
        }
        keep(&mut self.nodes, facts) || first
    }

    fn handle_pod(&mut self, change: Change<NamespacedName, PodSeen>) -> bool {
        let (facts, ports) = split(change, |seen| (seen.facts, seen.host_ports));
        match ports {
            Change::Upsert(_, Some(ports)) => self.balancer.upsert_pod(ports),
            Change::Upsert(name, None) | Change::Remove(name) => self.balancer.remove_pod(&name),
            Change::Replace(all) => {
                self.listed.pods = true;
                let kept: BTreeSet<_> =
                    all.iter().filter(|(_, ports)| ports.is_some()).map(|(name, _)| name).collect();
                let gone: Vec<_> =
                    self.balancer.pods().filter(|name| !kept.contains(name)).cloned().collect();
                gone.iter().for_each(|name| self.balancer.remove_pod(name));
                all.into_iter()
                    .filter_map(|(_, ports)| ports)
                    .for_each(|ports| self.balancer.upsert_pod(ports));
            }
        }
        keep(&mut self.pods, facts)
    }

    /// What changed for Services since the last call. Nothing while half a list is known: a Service without its slices
    /// would lose the backends that an earlier process wrote.
    pub(crate) fn refresh(&mut self) -> Changes {
        if !self.services_known() {
            return Changes::default();
        }
        let mut changes = self.balancer.refresh_some(ROUND);
        if !self.balancer.is_dirty() {
            changes.lost.extend(self.balancer.settle());
        }
        let namespaces = std::mem::take(&mut self.namespaces);
        changes.names.namespaces = namespaces.namespaces;
        changes.names.removed_namespaces = namespaces.removed_namespaces;
        changes
    }

    /// Whether another refresh is needed for what has been taken in.
    pub(crate) fn has_more(&self) -> bool {
        self.services_known() && self.balancer.is_dirty()
    }

    /// When the slices changed that the last refresh took in.
    pub(crate) fn take_since(&mut self) -> Vec<SystemTime> {
        std::mem::take(&mut self.since)
    }

    /// Whether everything that Services are computed from has been listed.
    pub(crate) fn services_known(&self) -> bool {
        self.listed.services && self.listed.slices && self.listed.nodes && self.listed.pods
    }

    /// Whether DNS can be answered in full.
    pub(crate) fn names_known(&self) -> bool {
        self.services_known() && self.listed.namespaces
    }

    /// Whether nodes have been listed.
    pub(crate) fn nodes_known(&self) -> bool {
        self.listed.nodes
    }

    /// The load balancer, for those who want to look at it.
    pub(crate) fn balancer(&self) -> &LoadBalancer {
        &self.balancer
    }

    /// Whether this node is about to go.
    pub(crate) fn is_leaving(&self) -> bool {
        self.own_state.is_leaving
    }

    /// Addresses that this node is known by.
    pub(crate) fn node_addresses(&self) -> BTreeSet<IpAddr> {
        let facts = self.nodes.get(self.name.as_str());
        let internal = facts.iter().flat_map(|facts| facts.addresses.iter().copied());
        self.own.addresses().chain(internal).chain(self.own_state.external.iter().copied()).collect()
    }

    /// Labels and service accounts of this node's pods.
    pub(crate) fn pods(&self) -> &BTreeMap<NamespacedName, PodFacts> {
        &self.pods
    }

    /// Every pod of the cluster by address.
    pub(crate) fn pod_names(&self) -> &PodNames {
        &self.pod_names
    }

    /// How many nodes and pods elsewhere are known.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.nodes.len(), self.pod_names.len())
    }

    /// Whether this node's own object is there.
    pub(crate) fn is_published(&self) -> bool {
        self.pod_names.has_node(self.name.as_str())
    }

    /// Addresses on this node's devices; true when that is news.
    pub(crate) fn set_own_addresses(&mut self, addresses: BTreeSet<IpAddr>) -> bool {
        let news = addresses != self.own_addresses;
        self.own_addresses = addresses;
        self.follow_node();
        news
    }

    /// What stands behind each prefix, and the claims of nodes that are not believed.
    pub(crate) fn ipcache(&mut self) -> (BTreeMap<IpCidr, Peer>, BTreeSet<Refusal>) {
        let node_ports = |address| self.balancing.has_node_ports(address);
        let believed = claims::believe(&self.nodes, self.name.as_str(), node_ports);
        let mut rows = believed.rows;
        // Last, so that no other node can claim what is this node's.
        rows.extend(self.own.ranges().map(|range| (range, Peer::new(PeerKind::LocalPods))));
        let given = self.own.addresses().chain(self.own_addresses.iter().copied());
        for address in given {
            let peer = Peer::new(PeerKind::Host).with_node_port(self.has_node_ports(address));
            rows.insert(IpCidr::host(address), peer);
        }
        rows.extend(self.own.gateways().map(|gateway| (IpCidr::host(gateway), Peer::new(PeerKind::Host))));
        self.owners = believed.owners;
        self.follow_node();
        (rows, believed.refused)
    }

    /// Whether node ports answer on an address of this node.
    fn has_node_ports(&self, address: IpAddr) -> bool {
        self.balancing.has_node_ports(address) && !self.is_gateway(address)
    }

    fn is_gateway(&self, address: IpAddr) -> bool {
        self.own.gateways().any(|gateway| gateway == address)
    }

    /// Tells the load balancer what changed of the node and those around it.
    fn follow_node(&mut self) {
        let addresses = self.own_addresses.iter().copied().filter(|address| !self.is_gateway(*address));
        let mut nodes = self.owners.clone();
        nodes.extend(self.own_addresses.iter().map(|address| (*address, self.name.to_string())));
        let context = Context {
            zone: self.own_state.zone.clone(),
            addresses: addresses.collect(),
            nodes,
            ..self.balancer.context().clone()
        };
        self.balancer.set_context(context);
    }
}

/// The two parts of what changed.
fn split<K: Clone, T, A, B>(
    change: Change<K, T>,
    part: impl Fn(T) -> (A, B),
) -> (Change<K, A>, Change<K, B>) {
    match change {
        Change::Upsert(key, value) => {
            let (one, other) = part(value);
            (Change::Upsert(key.clone(), one), Change::Upsert(key, other))
        }
        Change::Remove(key) => (Change::Remove(key.clone()), Change::Remove(key)),
        Change::Replace(all) => {
            let halves = all.into_iter().map(|(key, value)| {
                let (one, other) = part(value);
                ((key.clone(), one), (key, other))
            });
            let (ones, others) = halves.unzip();
            (Change::Replace(ones), Change::Replace(others))
        }
    }
}

fn state_of(change: Change<String, NodeState>, name: &str) -> Option<NodeState> {
    match change {
        Change::Upsert(key, state) => (key == name).then_some(state),
        Change::Remove(_) => None,
        Change::Replace(all) => all.into_iter().find(|(key, _)| key == name).map(|(_, state)| state),
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
