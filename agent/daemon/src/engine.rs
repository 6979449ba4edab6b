//! The one task that owns desired state: takes events in, writes tables, tells DNS and everybody else.
//!
//! Events are taken in batches, so that a burst costs one pass. Nothing is pruned before the lists it depends on have
//! been seen in full. Nothing here grows with what did not change.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use skep_datapath::{Peer, TableError, Tables};
use skep_loadbalancer::{Changes, HealthCheck, Lost, Report};
use skep_model::{IpCidr, NamespacedName, NodeName};
use skep_runtime::ReadyToken;
use skep_table::Counters;
use tokio::sync::{mpsc, watch};

use crate::{
    api::{Event, QUEUE},
    claims::Refusal,
    cluster::{Cluster, ClusterRanges, Touched},
    endpoints::Endpoints,
    facts::{Given, OwnNode},
    feed::DnsFeed,
    options::balancing::Balancing,
    pod_names::PodNames,
    publish::{self, Publication},
    tables::{MapReconciler, ServiceTables, Sizes, reconciler, retry_at},
    uplinks::NodeAddresses,
};

/// A slice that says it changed longer ago than this was not changed now: its latency would be a fiction.
const CREDIBLE: Duration = Duration::from_secs(600);

/// Why the engine stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Nobody sends events any more.
    Drained,
    /// The node's address or pod range is not what the data path was opened with.
    OwnNodeChanged,
}

/// What the engine knows, for reports.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    /// What is wanted for Services.
    pub(crate) services: Sizes,
    /// Rows of the ipcache wanted.
    pub(crate) ipcache: usize,
    /// Nodes known.
    pub(crate) nodes: usize,
    /// Pods known, of all nodes.
    pub(crate) peers: usize,
    /// What was done to each table.
    pub(crate) counters: Vec<(&'static str, Counters)>,
    /// Every pod by address.
    pub(crate) pod_names: PodNames,
}

/// What load balancers that ask this node need to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// Whether everything is in the kernel.
    pub(crate) is_synced: bool,
    /// When anything was written last.
    pub(crate) updated: Option<SystemTime>,
    /// Whether the node is about to go.
    pub(crate) is_leaving: bool,
    /// Services whose load balancer asks this node.
    pub(crate) checks: BTreeMap<NamespacedName, HealthCheck>,
}

/// Something to be done with what the engine knows, on its own task.
pub(crate) type Question = Box<dyn FnOnce(&Cluster) + Send>;

/// The engine's ends of the channels to everybody else.
pub(crate) struct Outputs {
    /// DNS for the proxy.
    pub(crate) feed: DnsFeed,
    /// The node's own object.
    pub(crate) publication: watch::Sender<Publication>,
    /// Numbers for reports.
    pub(crate) summary: watch::Sender<Summary>,
    /// For load balancers that ask.
    pub(crate) health: watch::Sender<Health>,
    /// Addresses that the node is known by.
    pub(crate) node_addresses: watch::Sender<NodeAddresses>,
    /// Backends whose flows are over.
    pub(crate) lost: mpsc::Sender<Vec<Lost>>,
    /// What is refused.
    pub(crate) reports: mpsc::Sender<Vec<Report>>,
    /// Seconds from a change of a slice to the maps.
    pub(crate) latency: prometheus::Histogram,
    /// Met once everything the data path needs has been listed and written.
    pub(crate) synced: ReadyToken,
}

/// What comes in.
pub(crate) struct Inputs {
    /// From the API server.
    pub(crate) events: mpsc::Receiver<Event>,
    /// Addresses on this node's devices.
    pub(crate) own_addresses: watch::Receiver<BTreeSet<IpAddr>>,
    /// From people.
    pub(crate) questions: mpsc::Receiver<Question>,
}

/// This node, as the engine is told of it.
pub(crate) struct Node {
    pub(crate) name: NodeName,
    pub(crate) own: OwnNode,
    pub(crate) given: Given,
    pub(crate) balancing: Balancing,
    pub(crate) ranges: ClusterRanges,
}

/// Desired state and its way into the kernel.
pub(crate) struct Engine {
    cluster: Cluster,
    own: OwnNode,
    given: Given,
    services: ServiceTables,
    ipcache: MapReconciler<IpCidr, Peer>,
    endpoints: Arc<Endpoints>,
    outputs: Outputs,
    refused_claims: BTreeSet<Refusal>,
    /// What could not be handed out yet, since whoever takes it is busy.
    lost: Vec<Lost>,
    reports: Vec<Report>,
    is_synced: bool,
}

impl Engine {
    /// Adopts the numbers in the pinned maps.
    pub(crate) fn new(
        node: Node,
        tables: &Tables,
        endpoints: Arc<Endpoints>,
        outputs: Outputs,
    ) -> Result<Self, TableError> {
        let pinned = ServiceTables::pinned(tables)?;
        Ok(Engine {
            cluster: Cluster::new(node.name, node.own, node.balancing, node.ranges, pinned),
            own: node.own,
            given: node.given,
            services: ServiceTables::new(tables),
            ipcache: reconciler("ipcache", &tables.ipcache),
            endpoints,
            outputs,
            refused_claims: BTreeSet::new(),
            lost: Vec::new(),
            reports: Vec::new(),
            is_synced: false,
        })
    }

    /// Runs until there is nobody left to listen to, or the node itself changed.
    pub(crate) async fn run(mut self, mut inputs: Inputs) -> Stop {
        let mut attachments = self.endpoints.changes();
        let mut batch = Vec::with_capacity(QUEUE);
        let mut retry = self.start(inputs.own_addresses.borrow_and_update().clone());
        loop {
            let timer = async {
                match retry {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                received = inputs.events.recv_many(&mut batch, QUEUE) => {
                    if received == 0 {
                        return Stop::Drained;
                    }
                }
                Ok(()) = attachments.changed() => self.publish(),
                Ok(()) = inputs.own_addresses.changed() => {
                    if self.cluster.set_own_addresses(inputs.own_addresses.borrow_and_update().clone()) {
                        self.write_ipcache();
                    }
                }
                Some(question) = inputs.questions.recv() => question(&self.cluster),
                () = timer => {}
            }
            let events = batch.drain(..);
            let handled = events.map(|event| self.cluster.handle(event, &self.given));
            let touched = handled.fold(Touched::default(), Touched::and);
            if touched.own_node {
                return Stop::OwnNodeChanged;
            }
            self.follow(touched);
            retry = self.settle();
        }
    }

    fn start(&mut self, own_addresses: BTreeSet<IpAddr>) -> Option<Instant> {
        self.cluster.set_own_addresses(own_addresses);
        self.write_ipcache();
        self.publish();
        self.settle()
    }

    fn follow(&mut self, touched: Touched) {
        if touched.ipcache {
            self.write_ipcache();
        }
        if touched.pods {
            self.publish();
        }
        if touched.names && !self.cluster.is_published() {
            self.outputs.publication.send_modify(|publication| publication.losses += 1);
        }
    }

    /// Rows are replaced as a whole; only differences reach the map.
    fn write_ipcache(&mut self) {
        let (rows, refused) = self.cluster.ipcache();
        for claim in refused.difference(&self.refused_claims) {
            tracing::warn!(
                node = claim.node, claim = %claim.claim, owner = claim.owner,
                "a Node claims an address that is another's: refused; compare status.addresses and spec.podCIDRs of both"
            );
        }
        self.refused_claims = refused;
        let table = self.ipcache.table();
        if self.cluster.nodes_known() {
            table.replace(rows);
            table.complete();
        } else {
            // Half a list: rows of nodes that are not listed yet may be in the map, and stay.
            for (prefix, peer) in rows {
                table.upsert(prefix, peer);
            }
        }
        let addresses =
            NodeAddresses { all: self.cluster.node_addresses(), is_complete: self.cluster.nodes_known() };
        self.outputs
            .node_addresses
            .send_if_modified(|now| std::mem::replace(now, addresses.clone()) != addresses);
    }

    /// Writes what changed, and says when to try again what failed.
    fn settle(&mut self) -> Option<Instant> {
        let mut retry = self.settle_some();
        while self.cluster.has_more() {
            retry = self.settle_some();
        }
        self.summarise();
        retry
    }

    fn settle_some(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut changes = self.cluster.refresh();
        let names = std::mem::take(&mut changes.names);
        let mut retry = self.services.apply(&changes, now);
        if self.is_known() && !self.is_synced {
            self.services.complete();
            retry = self.services.retry(now);
        }
        let peers = retry_at(self.ipcache.reconcile(now));
        self.outputs.feed.publish(names);
        if self.cluster.names_known() && !self.cluster.has_more() {
            self.outputs.feed.complete();
        }
        let is_written = retry.is_none() && peers.is_none();
        self.measure(is_written);
        if self.is_known() && is_written && !self.is_synced {
            self.is_synced = true;
            self.outputs.synced.ready();
        }
        self.tell(changes);
        retry.into_iter().chain(peers).min()
    }

    /// Whether everything has been listed and taken in.
    fn is_known(&self) -> bool {
        self.cluster.services_known() && self.cluster.nodes_known() && !self.cluster.has_more()
    }

    /// Notes how long the slices that were taken in took to be written.
    fn measure(&mut self, is_written: bool) {
        let since = self.cluster.take_since();
        if !self.is_synced || !is_written {
            return;
        }
        let ages = since.into_iter().filter_map(|since| since.elapsed().ok());
        for age in ages.filter(|age| *age < CREDIBLE) {
            self.outputs.latency.observe(age.as_secs_f64());
        }
    }

    /// Tells those who follow changes of Services.
    fn tell(&mut self, changes: Changes) {
        let wrote = !changes.is_empty();
        self.lost.extend(changes.lost);
        self.reports.extend(changes.reports);
        hand_out(&self.outputs.lost, &mut self.lost);
        hand_out(&self.outputs.reports, &mut self.reports);
        let (is_synced, is_leaving) = (self.is_synced, self.cluster.is_leaving());
        let checks = self.cluster.balancer().health_checks();
        self.outputs.health.send_if_modified(|health| {
            let news = (health.is_synced, health.is_leaving) != (is_synced, is_leaving) || changes.health;
            (health.is_synced, health.is_leaving) = (is_synced, is_leaving);
            if wrote || news {
                health.updated = Some(SystemTime::now());
            }
            if changes.health {
                health.checks.clone_from(checks);
            }
            news
        });
    }

    fn publish(&self) {
        let spec = publish::spec(self.own, &self.endpoints.list(), self.cluster.pods());
        self.outputs.publication.send_if_modified(|now| {
            let news = now.spec != spec;
            if news {
                now.spec = spec;
            }
            news
        });
    }

    fn summarise(&self) {
        let (nodes, peers) = self.cluster.sizes();
        let mut counters = self.services.counters().to_vec();
        counters.push(("ipcache", self.ipcache.counters()));
        self.outputs.summary.send_replace(Summary {
            services: self.services.sizes(),
            ipcache: self.ipcache.desired().len(),
            nodes,
            peers,
            counters,
            pod_names: self.cluster.pod_names().clone(),
        });
    }
}

/// Hands out what has gathered; while nobody has room for it, it goes on gathering.
fn hand_out<T>(to: &mpsc::Sender<Vec<T>>, gathered: &mut Vec<T>) {
    if gathered.is_empty() {
        return;
    }
    match to.try_reserve() {
        Ok(permit) => permit.send(std::mem::take(gathered)),
        // Nobody listens any more.
        Err(mpsc::error::TrySendError::Closed(())) => gathered.clear(),
        Err(mpsc::error::TrySendError::Full(())) => {}
    }
}

#[cfg(test)]
mod tests;
