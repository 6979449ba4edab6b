//! skep-controlplane: API server, scheduler and controllers in one process.
//!
//! This file is the composition root: it parses, opens what must be there, binds, starts the roles and drains them.
//! What the roles do lives in their crates.

mod admin;
mod args;
mod bootstrap;
mod compaction;
mod identity;
mod listeners;
mod roles;
mod store;

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use prometheus::Registry;
use skep_apiserver::ApiServer;
use skep_runtime::{Drain, Readiness, signal, telemetry};
use skep_storage::{Metered, Storage, StorageMetrics};

use args::{Args, Role};
use bootstrap::Token;
use identity::Identities;

/// Time for requests in flight when the process is asked to stop.
const DRAIN: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let args = Args::parse();
    let log_level = telemetry::init("info", args.log_format.into());
    match start(args, log_level) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args, log_level: telemetry::LogLevel) -> Result<()> {
    // First of all: later a number might belong to a descriptor that this process opened itself.
    let inherited = listeners::adopt(&args.listen_fd)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start worker threads")?.block_on(run(args, inherited, log_level))
}

async fn run(args: Args, inherited: Vec<TcpListener>, log_level: telemetry::LogLevel) -> Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider is installed already"))?;
    let (trigger, drain) = Drain::new();
    // From the beginning: a signal must find its handler while the store is still being opened.
    let mut stopped = tokio::spawn(signal::shutdown());
    let readiness = Readiness::default();
    let started = readiness.token("start");
    let metrics = Registry::new();
    let admin =
        admin::start(args.admin, readiness.clone(), metrics.clone(), log_level, drain.clone()).await?;
    std::fs::create_dir_all(&args.data_dir)
        .with_context(|| format!("cannot create the data directory {}", args.data_dir.display()))?;
    if let Some(target) = &args.migrate_to {
        return store::migrate_to(&args, target, &drain).await;
    }
    let reason = tokio::select! {
        outcome = start_roles(&args, inherited, &metrics, &readiness, &drain) => {
            outcome?;
            started.ready();
            stopped.await
        }
        reason = &mut stopped => reason,
    };
    let reason = reason.context("the signal task ended")?.context("cannot listen for signals")?;
    tracing::info!(reason, "stopping: requests in flight may finish");
    if !trigger.drain(DRAIN).await {
        tracing::warn!(seconds = DRAIN.as_secs(), "some work did not end in time");
    }
    admin.join();
    Ok(())
}

async fn start_roles(
    args: &Args,
    inherited: Vec<TcpListener>,
    metrics: &Registry,
    readiness: &Readiness,
    drain: &Drain,
) -> Result<()> {
    if args.has(Role::Apiserver) {
        let listeners = listeners::bind(args.bind, inherited)?;
        serve(args, listeners, metrics, readiness, drain).await
    } else {
        roles::start_apart(args, readiness, drain).await
    }
}

/// Starts the API server, and the other roles as its clients without a socket.
async fn serve(
    args: &Args,
    listeners: Vec<TcpListener>,
    metrics: &Registry,
    readiness: &Readiness,
    drain: &Drain,
) -> Result<()> {
    // The store first: its lock keeps a second process off the data directory.
    let metrics = StorageMetrics::register(metrics).context("cannot register the store's metrics")?;
    let storage: Arc<dyn Storage> = Arc::new(Metered::new(store::open(args, drain).await?, metrics));
    let identities = Identities::open(args)?;
    identities.write_admin_kubeconfig(args)?;
    let api = ApiServer::open(Arc::clone(&storage), identities.api_server_config(args)?)
        .await
        .context("cannot open the API server")?;
    start_serving(&api, listeners, readiness, drain);
    drain.spawn_until_drained(compaction::run(Arc::clone(&storage)));
    let client = api.in_process_client("system:apiserver", &["system:masters"]);
    let token = Token::new(client.clone(), args, identities.ca_pem().to_owned());
    let client_as = |user: &str| Ok(api.in_process_client(user, &[]));
    let roles = roles::prepare(args, Some(storage), &identities.authority(), client_as, readiness)?;
    let (ready, held) = (readiness.token("bootstrap"), drain.clone());
    drain.spawn_until_drained(async move {
        // The roles' rights are among the objects that the API server writes when it starts.
        bootstrap::api_is_ready(&client).await;
        roles::start(roles, &held);
        token.run().await;
        ready.ready();
    });
    Ok(())
}

/// Serves until the drain; a server that fails ends the process by its drain, so that its supervisor starts it anew.
fn start_serving(api: &Arc<ApiServer>, listeners: Vec<TcpListener>, readiness: &Readiness, drain: &Drain) {
    let ready = readiness.token("apiserver");
    ready.ready();
    let (api, held) = (Arc::clone(api), drain.clone());
    drain.spawn(async move {
        if let Err(error) = api.serve(listeners, held.clone()).await {
            ready.unready();
            if !held.is_draining() {
                let error = anyhow::Error::from(error);
                tracing::error!("the API server has stopped: {error:#}");
                std::process::exit(1);
            }
        }
    });
}
