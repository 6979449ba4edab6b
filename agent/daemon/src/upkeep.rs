//! What is done now and then: conntrack collection, network reconciliation, counters, the log of drops.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use skep_datapath::{Datapath, DatapathError, DropEvent, EventReader, MapPressure, Timeouts};
use skep_routing::Netlink;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    endpoints::Endpoints,
    engine::{Health, Summary},
    metrics::Metrics,
    network::{NodeDevices, devices},
    publish::Publication,
    report::Reporter,
};

const COLLECT: Duration = Duration::from_secs(30);
const RECONCILE: Duration = Duration::from_secs(30);
const OBSERVE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(250);
/// Drops that are logged within a second; the rest is counted exactly anyway.
const LOGGED_A_SECOND: u32 = 5;

/// Collects idle flows, for ever.
pub(crate) async fn collect_conntrack(
    datapath: Arc<Datapath>,
    metrics: Metrics,
    pressures: watch::Sender<Vec<MapPressure>>,
) {
    let mut ticks = interval(COLLECT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let datapath = Arc::clone(&datapath);
        let collect = move || -> Result<_, DatapathError> {
            Ok((datapath.collect_garbage(&Timeouts::default())?, datapath.pressure()?))
        };
        let collected = tokio::task::spawn_blocking(collect).await;
        match collected {
            Ok(Ok((report, pressure))) => {
                metrics.observe_conntrack(&report);
                metrics.observe_pressure(&pressure);
                pressures.send_replace(pressure);
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot collect idle flows"),
            Err(_) => return,
        }
    }
}

/// Puts programs in place that had to wait for full tables, once they are: after an upgrade that changed a map's layout.
pub(crate) async fn finish_replacement(datapath: Arc<Datapath>, mut health: watch::Receiver<Health>) {
    if health.wait_for(|health| health.is_synced).await.is_err() {
        return;
    }
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let datapath = Arc::clone(&datapath);
        match tokio::task::spawn_blocking(move || datapath.synced()).await {
            Ok(Err(error)) => tracing::warn!(%error, "a program cannot be replaced yet, the old one goes on"),
            Ok(Ok(())) | Err(_) => return,
        }
    }
}

/// Keeps the node's and pods' network as it should be. Returns when the node's devices are not those that programs were
/// loaded with: a new process has to load them anew.
pub(crate) async fn reconcile_network(
    endpoints: Arc<Endpoints>,
    netlink: Netlink,
    opened_with: NodeDevices,
    own_addresses: watch::Sender<BTreeSet<IpAddr>>,
) {
    let mut ticks = interval(RECONCILE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = endpoints.reconcile().await {
            tracing::warn!(%error, "cannot reconcile the network, will retry");
        }
        match endpoints.own_addresses().await {
            Ok(held) => {
                own_addresses.send_if_modified(|now| std::mem::replace(now, held.clone()) != held);
            }
            Err(error) => tracing::warn!(%error, "cannot read the node's addresses"),
        }
        match devices(&netlink, opened_with.uplink.clone()).await {
            Ok(now) if now != opened_with => {
                tracing::warn!(?now, before = ?opened_with, "the node's devices were replaced");
                return;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot look at the node's devices"),
        }
    }
}

/// Carries counters into metrics and the state into the node's annotation, for ever.
pub(crate) async fn observe(
    reporter: Reporter,
    datapath: Arc<Datapath>,
    metrics: Metrics,
    publication: watch::Sender<Publication>,
) {
    // A first annotation that only says "not ready yet" would alarm whoever looks at a node that just starts.
    let _ready_or_late = tokio::time::timeout(OBSERVE, reporter.readiness.ready()).await;
    let mut ticks = interval(OBSERVE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match datapath.counters() {
            Ok(rows) => metrics.observe_counters(&rows),
            Err(error) => tracing::warn!(%error, "cannot read the drop counters"),
        }
        let summary = reporter.summary.borrow().clone();
        metrics.observe_summary(&summary, reporter.endpoints.list().len());
        let annotation = reporter.annotation();
        publication.send_if_modified(|now| {
            let news = now.datapath != annotation;
            if news {
                now.datapath = annotation;
            }
            news
        });
    }
}

/// Logs a sample of drops with the pods that they concern, for ever. The ring is looked at now and then: nobody waits
/// for these lines, and a burst costs one look.
pub(crate) async fn log_drops(mut reader: EventReader, summary: watch::Receiver<Summary>) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut window = (Instant::now(), 0);
    loop {
        ticks.tick().await;
        if window.0.elapsed() >= Duration::from_secs(1) {
            window = (Instant::now(), 0);
        }
        while let Some(event) = reader.next() {
            window.1 += 1;
            if window.1 <= LOGGED_A_SECOND {
                log_drop(&event, &summary.borrow());
            }
        }
    }
}

fn log_drop(event: &DropEvent, summary: &Summary) {
    let named = |address: Option<std::net::SocketAddr>| -> String {
        let Some(address) = address else { return "?".into() };
        let pod = summary.pod_names.get(address.ip());
        pod.map_or_else(|| address.to_string(), |pod| format!("{address} ({pod})"))
    };
    tracing::info!(
        reason = event.reason.label(),
        hook = event.hook.label(),
        src = named(event.src),
        dst = named(event.dst),
        protocol = event.protocol,
        "dropped: {}",
        event.reason.text()
    );
}
