//! skep-agent: the node agent. Configuration and wiring only.
//!
//! `options` says what can be set; `facts` and `api` are where the cluster comes in, `cluster` is what follows from it,
//! `engine` and `tables` bring that to the kernel; `network` and `endpoints` own devices and pods, `cni` serves the
//! runtime, `feed` the proxy, `publish` and `report` everybody else; `uplinks`, `health`, `cut` and `events` are what
//! Services need besides tables; `upkeep` is what is done now and then.
//!
//! Everything in the kernel is pinned: while this process is down, traffic goes on, and the next one adopts it.

mod announce;
mod api;
mod claims;
mod cluster;
mod cni;
mod cut;
mod endpoints;
mod engine;
mod events;
mod facts;
mod feed;
mod health;
mod install;
mod metrics;
mod network;
mod nlmsg;
mod options;
mod pod_names;
mod publish;
mod report;
mod seen;
mod show;
mod tables;
mod takeover;
mod upkeep;
mod uplinks;

use std::{
    fs::File,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use axum::{Json, Router, routing::get};
use clap::Parser;
use nix::fcntl::{Flock, FlockArg};
use skep_datapath::Datapath;
use skep_routing::Netlink;
use skep_runtime::{
    Drain, Readiness,
    admin::{self, Admin},
    signal,
    telemetry::{self, LogFormat, LogLevel},
};
use skep_wire::{
    agent::{agent_server::AgentServer, cni_server::CniServer},
    proxy::feed_server::FeedServer,
    socket,
};
use tokio::sync::{mpsc, watch};
use tonic::transport::Server;

use crate::{
    cluster::ClusterRanges,
    cni::CniService,
    endpoints::Endpoints,
    engine::{Engine, Health, Inputs, Outputs, Stop, Summary},
    facts::{Given, OwnNode},
    feed::DnsFeed,
    health::PortState,
    metrics::Metrics,
    network::NodeDevices,
    options::Options,
    publish::Publication,
    report::Reporter,
    show::routes::{self, Answers},
    takeover::{KubeProxy, cleanup},
    uplinks::{NodeAddresses, Uplink, Uplinks},
};

/// The client's own lines repeat what the watches report.
const LOG: &str = "info,kube_client=off";
/// Batches of what is told that may wait.
const TOLD: usize = 16;
/// How long tasks may take to end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    if let Some(done) = tool() {
        return done;
    }
    let options = Options::parse();
    let log_level = telemetry::init(LOG, LogFormat::Text);
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (trigger, drain) = Drain::new();
    let outcome = tokio::select! {
        outcome = run(&options, log_level, &drain) => outcome,
        signal = signal::shutdown() => {
            tracing::info!(signal = signal?, "stopping; traffic goes on");
            Ok(())
        }
    };
    if !trigger.drain(DRAIN_DEADLINE).await {
        tracing::warn!("some tasks did not end in time");
    }
    outcome
}

/// Commands beside the agent itself: `show` and `kube-proxy`; `None` when none is meant.
fn tool() -> Option<anyhow::Result<()>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next()?;
    let rest = std::iter::once(format!("skep-agent {name}")).chain(arguments);
    match name.as_str() {
        "show" => Some(show::run(show::ShowTool::parse_from(rest))),
        "kube-proxy" => Some(cleanup::run(cleanup::KubeProxyTool::parse_from(rest))),
        _ => None,
    }
}

/// Everything from start to a reason to stop.
async fn run(options: &Options, log_level: LogLevel, drain: &Drain) -> anyhow::Result<()> {
    // Before the admin port, which an agent that is still ending holds as well.
    let _lock = exclusive(&options.state_dir).await?;
    let readiness = Readiness::default();
    let (network_up, synced) = (readiness.token("datapath"), readiness.token("synced"));
    let installed = readiness.token("cni");
    let registry = prometheus::Registry::new();
    let metrics = Metrics::register(&registry)?;
    let listener = admin::bind(options.admin).await.with_context(|| format!("--admin {}", options.admin))?;
    let (status, status_source) = watch::channel(None::<Reporter>);
    let routes = Admin { readiness: readiness.clone(), metrics: registry.clone(), log_level }.router();
    let (answers, answers_source) = watch::channel(None::<Answers>);
    let routes = routes.merge(status_route(status_source)).merge(routes::routes(answers_source));
    drain.spawn(admin::serve(listener, routes, drain.clone()));

    let client = api::client(options.api_server.as_ref()).await?;
    let given = options.given();
    let own = facts::own_node(&client, &options.node_name, &given, &options.state_dir).await;
    let node = start_node(options, own, drain).await?;
    network_up.ready();

    let (health, health_source) = watch::channel(Health::default());
    let (uplinks, uplinks_source) = watch::channel(Vec::new());
    let (pressures, pressures_source) = watch::channel(Vec::new());
    let (port_state, port_source) = watch::channel(PortState::default());
    let (kube_proxy, kube_proxy_source) = watch::channel(KubeProxy::default());
    let (publication, published) = watch::channel(Publication::default());
    let (summary, summary_source) = watch::channel(Summary::default());
    let reporter = Reporter {
        node: options.node_name.clone(),
        own,
        datapath: Arc::clone(&node.datapath),
        endpoints: Arc::clone(&node.endpoints),
        summary: summary_source.clone(),
        readiness: readiness.clone(),
        feed: DnsFeed::new(format!("{:x}", std::process::id()) + &nanoseconds()),
        started: SystemTime::now(),
        balancing: options.balancing.clone(),
        uplinks: uplinks_source,
        pressures: pressures_source,
        kube_proxy: kube_proxy_source,
        health: health_source.clone(),
    };
    status.send_replace(Some(reporter.clone()));
    serve_sockets(options, &node, &reporter.feed, &reporter, drain)?;
    serve_health(options, &health_source, port_state, drain);
    drain.spawn_until_drained(takeover::watch(kube_proxy, port_source));
    drain.spawn_until_drained(upkeep::finish_replacement(Arc::clone(&node.datapath), health_source));
    let datapath = Arc::clone(&node.datapath);
    drain.spawn_until_drained(upkeep::collect_conntrack(datapath, metrics.clone(), pressures));
    match node.datapath.events() {
        Ok(reader) => drop(drain.spawn_until_drained(upkeep::log_drops(reader, summary_source))),
        Err(error) => tracing::warn!(%error, "drops are counted but not logged"),
    }
    drain.spawn(announce::run(client.clone(), options.clone(), registry, drain.clone()));
    drain.spawn_until_drained(publish::run(client.clone(), options.node_name.clone(), published));
    let observed =
        upkeep::observe(reporter.clone(), Arc::clone(&node.datapath), metrics.clone(), publication.clone());
    drain.spawn_until_drained(observed);
    let running =
        Running { options, given, client, node, reporter, publication, summary, health, metrics, synced };
    tokio::select! {
        ended = running.run(uplinks, answers, drain) => ended,
        failed = announce(options, &readiness, installed) => failed,
    }
}

/// Everything that desired state needs on its way from the API server to the kernel.
struct Running<'a> {
    options: &'a Options,
    given: Given,
    client: kube::Client,
    node: Node,
    reporter: Reporter,
    publication: watch::Sender<Publication>,
    summary: watch::Sender<Summary>,
    health: watch::Sender<Health>,
    metrics: Metrics,
    synced: skep_runtime::ReadyToken,
}

impl Running<'_> {
    /// Until something ends that must not.
    async fn run(
        self,
        uplinks: watch::Sender<Vec<Uplink>>,
        answers: watch::Sender<Option<Answers>>,
        drain: &Drain,
    ) -> anyhow::Result<()> {
        let Running { options, given, client, node, reporter, metrics, .. } = self;
        let (own_addresses, own_addresses_source) = watch::channel(node.endpoints.own_addresses().await?);
        let (node_addresses, node_addresses_source) = watch::channel(NodeAddresses::default());
        let (lost, lost_source) = mpsc::channel(TOLD);
        let (reports, reports_source) = mpsc::channel(TOLD);
        let (questions, questions_source) = mpsc::channel(1);
        let (events, received) = mpsc::channel(api::QUEUE);
        let outputs = Outputs {
            feed: reporter.feed.clone(),
            publication: self.publication,
            summary: self.summary,
            health: self.health,
            node_addresses,
            lost,
            reports,
            latency: metrics.sync_latency(),
            synced: self.synced,
        };
        let engine_node = engine::Node {
            name: options.node_name.clone(),
            own: reporter.own,
            given,
            balancing: options.balancing.clone(),
            ranges: ClusterRanges {
                services: options.service_cidr.iter().collect(),
                pods: options.cluster_cidr.iter().collect(),
            },
        };
        let (datapath, endpoints) = (Arc::clone(&node.datapath), Arc::clone(&node.endpoints));
        let engine = Engine::new(engine_node, datapath.tables(), Arc::clone(&endpoints), outputs)?;
        let inputs =
            Inputs { events: received, own_addresses: own_addresses_source, questions: questions_source };
        let (datapath_too, endpoints_too) = (Arc::clone(&datapath), Arc::clone(&endpoints));
        answers.send_replace(Some(Answers {
            datapath: datapath_too,
            endpoints: endpoints_too,
            questions,
            reporter,
        }));
        drain.spawn_until_drained(api::watch_all(client.clone(), options.node_name.clone(), events));
        drain.spawn_until_drained(events::run(reports_source, client, options.node_name.clone()));
        drain.spawn_until_drained(cut::run(lost_source, Arc::clone(&datapath), endpoints, metrics));
        let uplinks = Uplinks::new(datapath as _, options.balancing.clone(), uplinks);
        let uplinks = uplinks.run(node.netlink.clone(), node_addresses_source);
        let upkeep = upkeep::reconcile_network(node.endpoints, node.netlink, node.devices, own_addresses);
        tokio::select! {
            stop = engine.run(inputs) => match stop {
                Stop::Drained => Ok(()),
                Stop::OwnNodeChanged => bail!("the node's address or pod range changed: starting anew with the new ones"),
            },
            () = upkeep => bail!("the node's devices were replaced: starting anew with the new ones"),
            ended = uplinks => match ended {
                Ok(()) => bail!("nobody tells of the node's devices any more: starting anew"),
                Err(error) => Err(error).context("cannot follow the node's devices"),
            },
        }
    }
}

/// What is running once the node's own part is up.
struct Node {
    netlink: Netlink,
    datapath: Arc<Datapath>,
    endpoints: Arc<Endpoints>,
    devices: NodeDevices,
}

/// Devices, programs, and the pods that an earlier process left.
async fn start_node(options: &Options, own: OwnNode, drain: &Drain) -> anyhow::Result<Node> {
    let (netlink, connection) = Netlink::open()?;
    drain.spawn_until_drained(connection);
    let (network, devices) = network::bring_up(&netlink, own, options).await?;
    let datapath = Arc::new(network::open_datapath(&network, &devices, options)?);
    let programs = Arc::clone(&datapath) as Arc<dyn endpoints::Programs>;
    let table = &datapath.tables().endpoints;
    let ranges: Vec<_> = own.ranges().collect();
    let endpoints = Endpoints::open(&options.state_dir, netlink.clone(), network, &ranges, programs, table)?;
    endpoints.restore().await?;
    tracing::info!(addresses = ?own.addresses().collect::<Vec<_>>(), ranges = own.ranges_text(), uplink = devices.uplink.name, "the data path is up");
    Ok(Node { netlink, datapath, endpoints: Arc::new(endpoints), devices })
}

/// What load balancers outside ask.
fn serve_health(
    options: &Options,
    health: &watch::Receiver<Health>,
    state: watch::Sender<PortState>,
    drain: &Drain,
) {
    if let Some(address) = options.balancing.kube_proxy_health.0 {
        drain.spawn_until_drained(health::serve_proxy_health(address, health.clone(), state));
    }
    if !options.balancing.no_health_check_node_ports {
        drain.spawn_until_drained(health::serve_checks(health.clone()));
    }
}

/// The sockets of the runtime and of the proxy.
fn serve_sockets(
    options: &Options,
    node: &Node,
    feed: &DnsFeed,
    reporter: &Reporter,
    drain: &Drain,
) -> anyhow::Result<()> {
    let cni = CniServer::new(CniService::new(Arc::clone(&node.endpoints)));
    let connections = socket::trusted_connections(socket::listen(&options.agent_socket())?);
    let server = Server::builder().add_service(cni).add_service(AgentServer::new(reporter.clone()));
    let stop = drain.clone();
    drain.spawn(async move {
        let served = server.serve_with_incoming_shutdown(connections, async move { stop.cancelled().await });
        served.await.inspect_err(|error| tracing::error!(%error, "the agent's socket failed"))
    });
    let connections = socket::trusted_connections(socket::listen(&options.proxy_socket())?);
    let server = Server::builder().add_service(FeedServer::new(feed.clone()));
    // Proxies hold their stream for ever, so this server is dropped, not drained.
    drain.spawn_until_drained(async move {
        if let Err(error) = server.serve_with_incoming(connections).await {
            tracing::error!(%error, "the proxy's socket failed");
        }
    });
    Ok(())
}

/// Tells the runtime about the plugin once pods can be attached and find their Services. Returns only on failure.
async fn announce(
    options: &Options,
    readiness: &Readiness,
    installed: skep_runtime::ReadyToken,
) -> anyhow::Result<()> {
    install::install_plugin(&options.cni_binary, &options.cni_bin_dir)?;
    loop {
        let report = readiness.report();
        if report.iter().all(|(name, met)| *met || name == "cni") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    install::write_conflist(&options.cni_conf_dir)?;
    installed.ready();
    tracing::info!("pods can be attached");
    std::future::pending().await
}

/// At most one agent works on a node: an old one may still be draining.
async fn exclusive(state_dir: &Path) -> anyhow::Result<Flock<File>> {
    std::fs::create_dir_all(state_dir).with_context(|| format!("create {}", state_dir.display()))?;
    let path = state_dir.join("lock");
    let mut file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, nix::errno::Errno::EWOULDBLOCK)) => file = back,
            Err((_, errno)) => bail!("lock {}: {errno}", path.display()),
        }
        tracing::info!("another agent holds the node; waiting for it to end");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn status_route(source: watch::Receiver<Option<Reporter>>) -> Router {
    let status = move || {
        let report = source.borrow().as_ref().map(Reporter::report);
        async move { Json(report) }
    };
    Router::new().route("/status", get(status))
}

fn nanoseconds() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    format!("-{:x}", since.map_or(0, |since| since.as_nanos()))
}
