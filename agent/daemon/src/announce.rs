//! Announces addresses of Services on the local network, so that neighbours send their packets to this node.
//!
//! One node an address answers ARP and neighbour solicitations for it; which one is agreed on by a Lease. What packets
//! for the address then meet is the data path's matter: every node can take them, so a move loses no Service.
//!
//! Map, all pure but the last four: [`wanted`] says what this node may announce, [`election`] whose turn it is,
//! [`frame`] reads and writes packets; [`watch`] brings facts in, [`lease`] carries the election's commands out,
//! [`devices`] lists devices, [`responder`] answers by [`socket`]. This file is the loop between them.

mod devices;
mod election;
mod frame;
mod lease;
mod responder;
mod socket;
mod wanted;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use clap::Args;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use prometheus::Registry;
use skep_model::{NamespacedName, NodeName};
use skep_runtime::Drain;
use tokio::{
    sync::{mpsc, watch as channel},
    task::AbortHandle,
    time::{MissedTickBehavior, interval},
};

use crate::options::Options;

use self::{
    election::{Election, Outcome, Reaction, Timing},
    lease::Writer,
    responder::{Metrics, Responder, Table},
    wanted::{Rules, View, Wanted, wanted},
    watch::{Change, Event, QUEUE},
};

/// How often devices are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long giving Leases back may take.
const FAREWELL: Duration = Duration::from_secs(3);

/// What can be set.
#[derive(Args, Clone, Debug)]
pub(crate) struct AnnounceOptions {
    /// Answers ARP and neighbour solicitations for the addresses of Services of class skep.dev/l2.
    #[arg(long = "l2-announcements", env = "SKEP_L2_ANNOUNCEMENTS", default_value_t = true, action = clap::ArgAction::Set)]
    enabled: bool,
    /// Seconds that a Lease holds an address without being renewed.
    #[arg(long = "l2-lease-duration", env = "SKEP_L2_LEASE_DURATION", default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=3600))]
    lease: u64,
    /// Seconds between renewals of a Lease.
    #[arg(long = "l2-lease-renew", env = "SKEP_L2_LEASE_RENEW", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    renew: u64,
    /// Seconds until a renewal that failed is tried again.
    #[arg(long = "l2-lease-retry", env = "SKEP_L2_LEASE_RETRY", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    retry: u64,
    /// Seconds that the Leases of an agent that ends are kept for its successor on the node.
    #[arg(long = "l2-lease-handover", env = "SKEP_L2_LEASE_HANDOVER", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=60))]
    handover: u64,
    /// Namespace of the Leases.
    #[arg(long = "l2-lease-namespace", env = "SKEP_L2_LEASE_NAMESPACE", default_value = "kube-system")]
    namespace: String,
    /// Treats Services of type LoadBalancer without a class as ours, as the operator must be told too.
    #[arg(long = "lbipam-default-class", env = "SKEP_LBIPAM_DEFAULT_CLASS", default_value_t = false, action = clap::ArgAction::Set)]
    default_class: bool,
}

impl AnnounceOptions {
    fn timing(&self) -> Timing {
        let lease = Duration::from_secs(self.lease);
        Timing {
            lease,
            // A renewal that comes too late is none.
            renew: Duration::from_secs(self.renew).min(lease * 2 / 3),
            retry: Duration::from_secs(self.retry),
            spread: Duration::from_secs(1),
            handover: Duration::from_secs(self.handover),
            leftover: Duration::from_secs(60),
        }
    }
}

/// Announces until the drain begins, then gives the Leases back. Without the right to raw sockets nothing is announced.
pub(crate) async fn run(client: Client, all: Options, registry: Registry, drain: Drain) {
    let (node, options) = (all.node_name, all.announcing);
    if !options.enabled {
        return;
    }
    let opened = Metrics::register(&registry).map_err(anyhow::Error::from);
    let responder = match opened.and_then(|metrics| Ok(Responder::open(metrics)?)) {
        Ok(responder) => responder,
        Err(error) => {
            tracing::error!(%error, "addresses of Services are not announced");
            return;
        }
    };
    let (disputes_in, disputes) = mpsc::channel(QUEUE);
    let (defend, defended) = mpsc::channel(QUEUE);
    let (table, tables) = channel::channel(Table::new());
    let (events, received) = mpsc::channel(QUEUE);
    let leases: Api<Lease> = Api::namespaced(client.clone(), &options.namespace);
    let announcer = Announcer {
        writer: Writer { api: leases.clone(), me: node.to_string(), duration: options.timing().lease },
        election: Election::new(node.as_str(), options.timing()),
        rules: Rules {
            default_class: options.default_class,
            external_ranges: all.balancing.external_ip_ranges,
        },
        node: node.clone(),
        uplinks: all.balancing.devices,
        client: client.clone(),
        events: events.clone(),
        view: View::default(),
        node_addresses: None,
        listed: Listed::default(),
        endpoints: BTreeMap::new(),
        wanted: Wanted::default(),
        table,
        defend,
    };
    let stop = drain.clone();
    tokio::select! {
        () = watch::watch_all(client, node, leases, events) => {}
        () = responder.run(tables, disputes_in, defended) => {}
        () = announcer.run(received, disputes, stop) => {}
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Listed {
    services: bool,
    policies: bool,
}

/// A watch of a Service's endpoints, and what it said.
#[derive(Debug)]
struct Endpoints {
    watch: AbortHandle,
    here: Option<bool>,
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

type Done = (IpAddr, Outcome, Instant);

struct Announcer {
    client: Client,
    node: NodeName,
    writer: Writer,
    election: Election,
    rules: Rules,
    /// The uplinks; empty to find them.
    uplinks: Vec<String>,
    events: mpsc::Sender<Event>,
    view: View,
    node_addresses: Option<Vec<IpAddr>>,
    listed: Listed,
    endpoints: BTreeMap<NamespacedName, Endpoints>,
    wanted: Wanted,
    table: channel::Sender<Table>,
    defend: mpsc::Sender<IpAddr>,
}

impl Announcer {
    async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut disputes: mpsc::Receiver<IpAddr>,
        drain: Drain,
    ) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut writes: FuturesUnordered<BoxFuture<'static, Done>> = FuturesUnordered::new();
        loop {
            let wake = self.election.wake();
            let timer = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = drain.cancelled() => return self.leave().await,
                Some(event) = events.recv() => {
                    let mut news = self.take_in(event);
                    while let Ok(event) = events.try_recv() {
                        news |= self.take_in(event);
                    }
                    if news {
                        self.decide();
                    }
                }
                Some((address, outcome, sent)) = writes.next() => {
                    self.election.outcome(address, outcome, sent, Instant::now());
                }
                Some(address) = disputes.recv() => self.dispute(address),
                _ = looks.tick() => self.decide(),
                () = timer => {}
            }
            for command in self.election.step(Instant::now()) {
                writes.push(self.write(command));
            }
            self.publish();
        }
    }

    fn write(&self, command: election::Command) -> BoxFuture<'static, Done> {
        let (writer, address, sent) = (self.writer.clone(), command.address(), Instant::now());
        let services = self.wanted.known.get(&address).cloned().unwrap_or_default();
        Box::pin(async move { (address, writer.execute(command, &services).await, sent) })
    }

    /// Takes in what happened; whether it matters to who may announce, which Leases do not.
    fn take_in(&mut self, event: Event) -> bool {
        match event {
            Event::Node(view, addresses) => {
                self.view.node = *view;
                self.node_addresses = Some(addresses);
            }
            Event::Service(change) => {
                self.listed.services |= keep(&mut self.view.services, change);
                self.watch_endpoints();
            }
            Event::Policy(change) => self.listed.policies |= keep(&mut self.view.policies, change),
            Event::Lease(change) => {
                let now = Instant::now();
                match change {
                    Change::Upsert(address, lease) => self.election.observe(address, Some(lease), now),
                    Change::Remove(address) => self.election.observe(address, None, now),
                    Change::Replace(all) => self.election.list(all.into_iter().collect(), now),
                }
                return false;
            }
            Event::Local(service, here) => {
                if let Some(endpoints) = self.endpoints.get_mut(&service) {
                    endpoints.here = Some(here);
                }
            }
        }
        true
    }

    /// Watches the endpoints of those Services that need one on this node, and of no others.
    fn watch_endpoints(&mut self) {
        let services = &self.view.services;
        let needs: BTreeSet<&NamespacedName> =
            services.iter().filter(|(_, service)| service.local).map(|(name, _)| name).collect();
        self.endpoints.retain(|name, _| needs.contains(name));
        for name in needs {
            if !self.endpoints.contains_key(name) {
                let (client, node, events) = (self.client.clone(), self.node.clone(), self.events.clone());
                let watch =
                    tokio::spawn(watch::watch_local(client, name.clone(), node, events)).abort_handle();
                self.endpoints.insert(name.clone(), Endpoints { watch, here: None });
            }
        }
    }

    /// Says anew what this node may announce, once everything that it depends on is known: what is not known yet must
    /// not give an address away.
    fn decide(&mut self) {
        let Some(addresses) = &self.node_addresses else { return };
        let undecided = self.endpoints.values().any(|endpoints| endpoints.here.is_none());
        if !self.listed.services || !self.listed.policies || undecided {
            return;
        }
        match devices::devices(addresses, &self.uplinks) {
            Ok(devices) => self.view.devices = devices,
            Err(error) => tracing::warn!(%error, "cannot list the node's devices"),
        }
        let here = self.endpoints.iter().filter(|(_, endpoints)| endpoints.here == Some(true));
        self.view.local = here.map(|(name, _)| name.clone()).collect();
        self.wanted = wanted(&self.view, &self.rules);
        let known = self.wanted.known.keys().copied().collect();
        let candidates = self.wanted.candidates.keys().copied().collect();
        self.election.want(&known, &candidates, Instant::now());
    }

    fn dispute(&mut self, address: IpAddr) {
        match self.election.heard_claim(address, Instant::now()) {
            Reaction::Ignore => {}
            // A full queue loses nothing: whoever claims an address does so again.
            Reaction::Defend => drop(self.defend.try_send(address)),
            Reaction::Yield => {
                tracing::warn!(%address, "another node has taken the address while the API server was away");
            }
        }
    }

    /// Tells the responder what to answer for.
    fn publish(&self) {
        let announced = self.election.announced().into_iter();
        let table: Table = announced
            .filter_map(|address| Some((address, self.wanted.candidates.get(&address)?.clone())))
            .collect();
        self.table.send_if_modified(|now| {
            let news = *now != table;
            *now = table;
            news
        });
    }

    /// Gives the Leases back.
    async fn leave(self) {
        let commands = self.election.farewell(self.view.node.leaving);
        let writes: FuturesUnordered<_> = commands.into_iter().map(|command| self.write(command)).collect();
        if tokio::time::timeout(FAREWELL, writes.collect::<Vec<_>>()).await.is_err() {
            tracing::warn!("some Leases were not given back: others wait for them to end");
        }
    }
}

/// Takes a change in; whether it was a whole list.
fn keep<K: Ord, T>(known: &mut BTreeMap<K, T>, change: Change<K, T>) -> bool {
    match change {
        Change::Upsert(key, value) => drop(known.insert(key, value)),
        Change::Remove(key) => drop(known.remove(&key)),
        Change::Replace(all) => {
            *known = all.into_iter().collect();
            return true;
        }
    }
    false
}
