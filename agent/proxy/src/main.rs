//! skep-proxy: the node's user-space data plane; here, the node DNS.
//!
//! It decides nothing: the agent feeds it, and it serves the last view for as long as it lives. The listeners run on
//! a runtime of their own, so that a scrape of the admin port adds nothing to an answer's time.

mod dns;
mod feed;
mod metrics;
mod stored;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use parking_lot::RwLock;
use skep_runtime::{
    Drain, Readiness,
    admin::{self, Admin},
    signal,
    telemetry::{self, LogFormat},
};

use crate::{
    dns::{
        server::{Listeners, Resolver},
        upstream::Upstreams,
        zone::Zone,
    },
    feed::Feed,
    metrics::Metrics,
    stored::ViewFile,
};

const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// The node's user-space data plane.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// The node's address, or one a family; DNS listens there.
    #[arg(long, env = "SKEP_NODE_IP", required = true, value_delimiter = ',')]
    node_ip: Vec<IpAddr>,
    /// Where the agent feeds the proxy.
    #[arg(long, default_value = "/run/skep/proxy.sock")]
    agent_socket: PathBuf,
    /// The port of the node DNS, UDP and TCP.
    #[arg(long, default_value_t = 10053)]
    listen_port: u16,
    /// The domain of the cluster's names.
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
    /// The node's resolvers, for names outside the cluster.
    #[arg(long, default_value = "/etc/resolv.conf")]
    resolv_conf: PathBuf,
    /// Where the last view is kept.
    #[arg(long, default_value = "/var/lib/skep/proxy")]
    state_dir: PathBuf,
    /// The Service address of the cluster's DNS, or one a family: the name server that our zone names, never an
    /// upstream.
    #[arg(long, value_delimiter = ',')]
    dns_address: Vec<IpAddr>,
    /// The admin listener, on loopback.
    #[arg(long, default_value = "127.0.0.1:9871")]
    admin: SocketAddr,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let log_level = telemetry::init("info", LogFormat::Text);
    let registry = prometheus::Registry::new();
    let readiness = Readiness::default();
    let (trigger, drain) = Drain::new();

    let data_plane = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("dns").build()?;
    data_plane.block_on(serve_dns(&options, &registry, &readiness, &drain))?;

    let control = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    control.block_on(async {
        let listener =
            admin::bind(options.admin).await.with_context(|| format!("--admin {}", options.admin))?;
        let router = Admin { readiness, metrics: registry, log_level }.router();
        let admin = tokio::spawn(admin::serve(listener, router, drain.clone()));
        let signal = signal::shutdown().await?;
        tracing::info!(signal, "stopping");
        trigger.drain(DRAIN_DEADLINE).await;
        admin.await??;
        anyhow::Ok(())
    })
}

async fn serve_dns(
    options: &Options,
    registry: &prometheus::Registry,
    readiness: &Readiness,
    drain: &Drain,
) -> anyhow::Result<()> {
    let metrics = Metrics::new(registry)?;
    let zone = Zone::new(&options.cluster_domain, options.dns_address.clone())
        .context("--cluster-domain is not a DNS name")?;
    let zone = Arc::new(RwLock::new(zone));
    let ours: Vec<IpAddr> = options.dns_address.iter().chain(&options.node_ip).copied().collect();
    let upstreams = Upstreams::from_file(&options.resolv_conf, &ours).with_context(|| {
        format!("cannot read the node's resolvers from {}", options.resolv_conf.display())
    })?;
    tracing::info!(resolvers = ?upstreams.resolvers(), "names outside the cluster");

    let file = ViewFile::new(&options.state_dir);
    let mut feed = Feed::new(
        options.agent_socket.clone(),
        zone.clone(),
        file,
        metrics.clone(),
        readiness.token("dns-view"),
    );
    feed.restore();

    let resolver = Resolver::new(zone, upstreams, metrics);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    for ip in &options.node_ip {
        let address = SocketAddr::new(*ip, options.listen_port);
        let listeners = Listeners::bind(address).await.with_context(|| {
            format!(
                "cannot listen on {address}: --node-ip must be an address of this node, and the port free"
            )
        })?;
        listeners.serve(resolver.clone(), workers, drain);
        tracing::info!(%address, "the node DNS listens");
    }
    drain.spawn_until_drained(feed.run());
    Ok(())
}
