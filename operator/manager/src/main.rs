//! skep-operator: what a cluster needs once, not once a node: our CRDs, the addresses of Services, and the removal of
//! what nodes left behind.
//!
//! Several may run; a Lease decides which one acts. It is never on the path of a pod's start.

mod crds;
mod election;
mod endpoints;
mod lbipam;

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use clap::Parser;
use kube::{Client, Config};
use skep_model::IpCidr;
use skep_runtime::{
    Backoff, Drain, Readiness,
    admin::{self, Admin},
    signal,
    telemetry::{self, LogFormat},
};

const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// The cluster-wide part of Skep's network.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// The API server's own address; the cluster's Service for it may not be reachable yet.
    #[arg(long, env = "SKEP_API_SERVER")]
    api_server: Option<http::Uri>,
    /// The namespace that holds the Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "kube-system")]
    namespace: String,
    /// Who we are in the Lease; unique among the replicas.
    #[arg(long, env = "POD_NAME", default_value = "skep-operator")]
    identity: String,
    /// The admin listener, on loopback.
    #[arg(long, default_value = "127.0.0.1:9872")]
    admin: SocketAddr,
    /// Ranges of the pods, separated by commas: no pool of Service addresses may touch them.
    #[arg(long, env = "SKEP_CLUSTER_CIDR", value_delimiter = ',')]
    cluster_cidr: Vec<IpCidr>,
    /// Ranges of the Services, separated by commas: no pool of Service addresses may touch them.
    #[arg(long, env = "SKEP_SERVICE_CIDR", value_delimiter = ',')]
    service_cidr: Vec<IpCidr>,
    /// Gives addresses to Services of type LoadBalancer without a class too, not only to those of class skep.dev/l2.
    #[arg(long, env = "SKEP_LBIPAM_DEFAULT_CLASS", default_value_t = false, action = clap::ArgAction::Set)]
    lbipam_default_class: bool,
}

impl Options {
    fn lbipam(&self) -> lbipam::Settings {
        lbipam::Settings {
            reserved: lbipam::Reserved {
                pods: self.cluster_cidr.clone(),
                services: self.service_cidr.clone(),
            },
            default_class: self.lbipam_default_class,
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let log_level = telemetry::init("info", LogFormat::Text);
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = connect(&options).await?;
    let readiness = Readiness::default();
    let (trigger, drain) = Drain::new();

    let listener = admin::bind(options.admin).await.with_context(|| format!("--admin {}", options.admin))?;
    let metrics = prometheus::Registry::new();
    let lbipam_metrics = lbipam::Metrics::register(&metrics)?;
    let token = readiness.token("api");
    drain.spawn(admin::serve(listener, Admin { readiness, metrics, log_level }.router(), drain.clone()));

    let settings = options.lbipam();
    let candidate = election::Candidate::new(client.clone(), &options.namespace, &options.identity);
    drain.spawn_until_drained(async move {
        // A replica that waits for the Lease is as ready as it can be.
        token.ready();
        candidate.lead(|term| work(client.clone(), settings.clone(), lbipam_metrics.clone(), term)).await;
    });
    let signal = signal::shutdown().await?;
    tracing::info!(signal, "stopping");
    trigger.drain(DRAIN_DEADLINE).await;
    Ok(())
}

async fn connect(options: &Options) -> anyhow::Result<Client> {
    let mut config = match Config::incluster() {
        Ok(config) => config,
        Err(_) => Config::infer().await.context("neither a service account nor a kubeconfig is here")?,
    };
    if let Some(server) = &options.api_server {
        config.cluster_url = server.clone();
    }
    Client::try_from(config).context("the API client")
}

/// What the leader does until its term ends.
async fn work(client: Client, settings: lbipam::Settings, metrics: lbipam::Metrics, term: Drain) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    while let Err(error) = crds::ensure(&client).await {
        tracing::warn!(%error, "the custom resource definitions are not in place; trying again");
        tokio::select! {
            () = tokio::time::sleep(backoff.next_delay()) => {}
            () = term.cancelled() => return,
        }
    }
    tokio::select! {
        () = endpoints::collect(client.clone()) => {}
        () = lbipam::run(client, settings, metrics) => {}
        () = term.cancelled() => {}
    }
}
