//! The one task that owns desired state: takes events in, writes tables, tells DNS and the publisher.
//!
//! Events are taken in batches, so that a burst costs one pass. Nothing is pruned before the lists it depends on have
//! been seen in full.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Instant,
};

use skep_datapath::{Peer, TableError, Tables};
use skep_model::{IpCidr, NamespacedName, NodeName};
use skep_runtime::ReadyToken;
use skep_table::Counters;
use tokio::sync::{mpsc, watch};

use crate::{
    claims::Refusal,
    api::{Event, QUEUE},
    cluster::{Cluster, Touched},
    endpoints::Endpoints,
    facts::OwnNode,
    feed::DnsFeed,
    publish::{self, Publication},
    tables::{MapReconciler, ServiceTables, reconciler, retry_at},
};

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
    /// Frontends wanted.
    pub(crate) frontends: usize,
    /// Slots of backends wanted.
    pub(crate) backends: usize,
    /// Rows of the ipcache wanted.
    pub(crate) ipcache: usize,
    /// Nodes known.
    pub(crate) nodes: usize,
    /// Pods known, of all nodes.
    pub(crate) peers: usize,
    /// What was done to each table.
    pub(crate) counters: Vec<(&'static str, Counters)>,
    /// Every pod by address.
    pub(crate) pod_names: Arc<BTreeMap<IpAddr, NamespacedName>>,
}

/// The engine's ends of the channels to everybody else.
pub(crate) struct Outputs {
    /// DNS for the proxy.
    pub(crate) feed: DnsFeed,
    /// The node's own object.
    pub(crate) publication: watch::Sender<Publication>,
    /// Numbers for reports.
    pub(crate) summary: watch::Sender<Summary>,
    /// Met once everything the data path needs has been listed and written.
    pub(crate) synced: ReadyToken,
}

/// Desired state and its way into the kernel.
pub(crate) struct Engine {
    cluster: Cluster,
    own: OwnNode,
    node_ip: Option<Ipv4Addr>,
    services: ServiceTables,
    ipcache: MapReconciler<IpCidr, Peer>,
    endpoints: Arc<Endpoints>,
    outputs: Outputs,
    pod_names: Arc<BTreeMap<IpAddr, NamespacedName>>,
    refused_claims: BTreeSet<Refusal>,
}

impl Engine {
    /// Adopts the numbers in the pinned maps.
    pub(crate) fn new(
        name: NodeName,
        own: OwnNode,
        node_ip: Option<Ipv4Addr>,
        tables: &Tables,
        endpoints: Arc<Endpoints>,
        outputs: Outputs,
    ) -> Result<Self, TableError> {
        let pinned = ServiceTables::pinned(&tables.frontends)?;
        Ok(Engine {
            cluster: Cluster::new(name, own, pinned),
            own,
            node_ip,
            services: ServiceTables::new(&tables.frontends, &tables.backends),
            ipcache: reconciler("ipcache", &tables.ipcache),
            endpoints,
            outputs,
            pod_names: Arc::default(),
            refused_claims: BTreeSet::new(),
        })
    }

    /// Runs until there is nobody left to listen to, or the node itself changed.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut own_addresses: watch::Receiver<BTreeSet<IpAddr>>,
    ) -> Stop {
        let mut attachments = self.endpoints.changes();
        let mut batch = Vec::with_capacity(QUEUE);
        let mut retry = self.start(own_addresses.borrow_and_update().clone());
        loop {
            let timer = async {
                match retry {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                received = events.recv_many(&mut batch, QUEUE) => {
                    if received == 0 {
                        return Stop::Drained;
                    }
                }
                Ok(()) = attachments.changed() => self.publish(),
                Ok(()) = own_addresses.changed() => {
                    if self.cluster.set_own_addresses(own_addresses.borrow_and_update().clone()) {
                        self.write_ipcache();
                    }
                }
                () = timer => {}
            }
            let events = batch.drain(..);
            let handled = events.map(|event| self.cluster.handle(event, self.node_ip));
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
        if touched.names {
            self.pod_names = Arc::new(self.cluster.pod_names());
            if !self.cluster.is_published() {
                self.outputs.publication.send_modify(|publication| publication.losses += 1);
            }
        }
    }

    /// Rows are replaced as a whole; only differences reach the map.
    fn write_ipcache(&mut self) {
        let rows = self.cluster.ipcache();
        let refused = self.cluster.refused_claims();
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
    }

    /// Writes what changed, and says when to try again what failed.
    fn settle(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let changes = self.cluster.refresh();
        let mut retry = self.services.apply(&changes, now);
        if self.cluster.services_known() {
            self.services.complete();
            retry = self.services.retry(now);
        }
        let peers = retry_at(self.ipcache.reconcile(now));
        if self.cluster.names_known() {
            self.outputs.feed.publish(changes.names);
            self.outputs.feed.publish_first(self.cluster.names());
        }
        if self.cluster.services_known() && self.cluster.nodes_known() && retry.is_none() && peers.is_none() {
            self.outputs.synced.ready();
        }
        self.summarise();
        retry.into_iter().chain(peers).min()
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
        let (frontends, backends) = self.services.sizes();
        let (nodes, peers) = self.cluster.sizes();
        let mut counters = self.services.counters().to_vec();
        counters.push(("ipcache", self.ipcache.counters()));
        self.outputs.summary.send_replace(Summary {
            frontends,
            backends,
            ipcache: self.ipcache.desired().len(),
            nodes,
            peers,
            counters,
            pod_names: Arc::clone(&self.pod_names),
        });
    }
}

#[cfg(test)]
mod tests;
