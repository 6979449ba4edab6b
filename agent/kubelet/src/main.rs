//! skep-kubelet: runs this node's pods through the container runtime interface.
//!
//! Map: [`pod`] decides (pure), [`worker`] carries out, [`pods`] has a worker for each pod that [`source`] (API)
//! or [`pleg`] (runtime) knows; [`cri`], [`volume`], [`cgroup`], [`env`], [`container`], [`sandbox`] and [`probe`]
//! are its hands; [`identity`], [`session`] and [`node`] keep the node a member of the cluster; [`server`],
//! [`stream`] and [`logs`] serve the kubelet API; [`gc`] tidies up.

mod cgroup;
mod config;
mod container;
mod cri;
mod env;
mod events;
mod gc;
mod identity;
mod logs;
mod node;
mod objects;
mod pleg;
mod pod;
mod pods;
mod probe;
mod quantity;
mod sandbox;
mod server;
mod session;
mod shared;
mod source;
mod stream;
mod volume;
mod worker;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use clap::Parser;
use skep_runtime::{
    Readiness,
    admin::{self, Admin},
    drain::Drain,
    signal,
    telemetry::{self, LogFormat, LogLevel},
};
use tokio::{net::TcpListener, sync::watch};

use crate::{
    cgroup::Cgroups,
    config::Config,
    cri::Cri,
    env::fields::NodeFields,
    events::{Recorder, Sender},
    identity::{
        bootstrap::{self, Files},
        keypair::Keypair,
        renewal::Renewal,
        request::Subject,
    },
    node::{lease, machine::Machine, register::Reporter, runtime},
    objects::Objects,
    pods::Pods,
    server::{
        listen,
        routes::{self, Api},
        tls::{self, ServingCertificate},
    },
    session::{Credential, Session},
    shared::{Features, RuntimeState, Shared},
};

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    let log_level = telemetry::init("info,kube_client=warn,tower=warn,hyper=warn", LogFormat::Text);
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let (trigger, drain) = Drain::new();

    // Bind eagerly: a taken port must be known before the node takes pods.
    let listener = TcpListener::bind(SocketAddr::new(config.listen_ip(), config.port)).await;
    let listener = listener.with_context(|| format!("kubelet API port {}", config.port))?;
    let readiness = serve_admin(&config, log_level, &drain).await?;
    let ready = readiness.token("registered");

    let running = run(config, listener, ready, drain.clone());
    tokio::select! {
        result = running => result?,
        name = signal::shutdown() => tracing::info!(signal = name?, "stopping; pods run on"),
    }
    trigger.drain(Duration::from_secs(3)).await;
    Ok(())
}

async fn serve_admin(config: &Config, log_level: LogLevel, drain: &Drain) -> anyhow::Result<Readiness> {
    let readiness = Readiness::default();
    let address = SocketAddr::from(([127, 0, 0, 1], config.healthz_port));
    let listener =
        admin::bind(address).await.with_context(|| format!("health port {}", config.healthz_port))?;
    let metrics = prometheus::default_registry().clone();
    let router = Admin { readiness: readiness.clone(), metrics, log_level }.router();
    let (own, tasks) = (drain.clone(), drain.clone());
    tasks.spawn(async move {
        if let Err(error) = admin::serve(listener, router, own).await {
            tracing::error!(%error, "health endpoint ended");
        }
    });
    Ok(readiness)
}

async fn run(
    config: Config,
    listener: TcpListener,
    ready: skep_runtime::ReadyToken,
    drain: Drain,
) -> anyhow::Result<()> {
    let files = Files::new(&config.root_dir);
    let subject = Subject { node: config.node_name.clone(), ips: config.node_ip.clone() };
    let cgroups = Cgroups::prepare(config.pod_max_pids).context("pod cgroups")?;

    // Who we are.
    let bootstrap = bootstrap::read(&config, &files)?;
    let pair = bootstrap::client_certificate(&bootstrap, &files, &subject).await?;
    let credential = Credential::Certificate { cert: pair.cert.clone(), key: pair.key.clone() };
    let session = Session::new(session::client(&bootstrap.server, &credential).await?);
    let renewal = Renewal {
        session: session.clone(),
        server: bootstrap.server.clone(),
        subject,
        bootstrap: bootstrap.credential.clone(),
    };
    drain.spawn_until_drained(renewal.clone().client(pair, files.client.clone()));
    let serving = ServingCertificate::temporary(&config.node_name)?;
    let stored = Keypair::load(&files.serving)?;

    // What we run with.
    let cri = Cri::new(&config.cri);
    let (state, network) = watch::channel(RuntimeState::default());
    drain.spawn_until_drained(runtime::watch_state(cri.clone(), state));
    let (events, queue) = Recorder::new();
    drain.spawn_until_drained(Sender::new(session.clone(), config.node_name.clone()).run(queue));
    let (version, features) = runtime_facts(&cri).await;
    let machine = Machine::read(&config.root_dir, config.capacity(), &config.reserved);
    let shared = Arc::new(Shared {
        node_fields: NodeFields { host_ips: config.node_ips(), allocatable: machine.allocatable.clone() },
        node_ips: config.node_ips(),
        memory_bytes: machine.memory_bytes(),
        objects: Objects::new(session.clone()),
        cri: cri.clone(),
        session: session.clone(),
        events,
        cgroups,
        features,
        network,
        config,
    });

    // The kubelet API, before pods need it.
    let pods = Pods::new(shared.clone());
    let router = routes::router(Api { shared: shared.clone(), pods: pods.clone() });
    let tls = tls::config(serving.clone(), &bootstrap.server.ca)?;
    drain.spawn_until_drained(listen::serve(listener, tls, router));

    join(&shared, &pods, Reporter::new(shared.clone(), machine, version), &drain).await;
    ready.ready();
    // Only now does the API know the addresses that the serving certificate is to name.
    drain.spawn_until_drained(renewal.serving(serving, stored, files.serving.clone()));
    let name = shared.config.node_name.clone();
    drain.spawn_until_drained(lease::keep(session.clone(), name.clone()));
    source::run(session, name, pods).await;
    Ok(())
}

/// Watches the runtime and registers the node.
async fn join(shared: &Arc<Shared>, pods: &Arc<Pods>, reporter: Reporter, drain: &Drain) {
    let cri = shared.cri.clone();
    drain.spawn_until_drained(pleg::poll(cri.clone(), pods.clone()));
    drain.spawn_until_drained(pleg::follow(cri.clone(), pods.clone()));
    drain.spawn_until_drained(logs::rotate::run(cri));
    drain.spawn_until_drained(gc::run(shared.clone(), pods.clone()));
    reporter.register().await;
    let severity = events::Severity::Normal;
    shared.events.node(&shared.config.node_name, severity, "Starting", "Starting kubelet.".to_owned());
    drain.spawn_until_drained(reporter.run());
}

/// The runtime's version and features, once it answers.
async fn runtime_facts(cri: &Cri) -> (String, Features) {
    loop {
        match cri.version().await {
            Ok(version) => {
                let handlers = cri.status().await.map(|s| s.runtime_handlers).unwrap_or_default();
                let default = handlers.into_iter().find(|h| h.name.is_empty()).and_then(|h| h.features);
                let features = Features { user_namespaces: default.is_some_and(|f| f.user_namespaces) };
                return (format!("{}://{}", version.runtime_name, version.runtime_version), features);
            }
            Err(error) => {
                tracing::warn!(%error, "waiting for the container runtime");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
