//! What the agent says of itself: over its socket, as JSON on the admin port, and in the annotation that `skep status`
//! reads.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use serde_json::{Value, json};
use skep_datapath::{Datapath, MapPressure};
use skep_model::NodeName;
use skep_runtime::Readiness;
use skep_wire::agent as wire;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::{
    endpoints::Endpoints,
    engine::{Health, Summary},
    facts::OwnNode,
    feed::DnsFeed,
    options::balancing::{Balancing, Mode},
    takeover::KubeProxy,
    uplinks::Uplink,
};

/// The version of this build.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Everything that a report is made from.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub(crate) node: NodeName,
    pub(crate) own: OwnNode,
    pub(crate) datapath: Arc<Datapath>,
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) summary: watch::Receiver<Summary>,
    pub(crate) readiness: Readiness,
    pub(crate) feed: DnsFeed,
    pub(crate) started: SystemTime,
    pub(crate) balancing: Balancing,
    pub(crate) uplinks: watch::Receiver<Vec<Uplink>>,
    pub(crate) pressures: watch::Receiver<Vec<MapPressure>>,
    pub(crate) kube_proxy: watch::Receiver<KubeProxy>,
    pub(crate) health: watch::Receiver<Health>,
}

/// The state of the node's network.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    version: &'static str,
    node: String,
    pod_cidr: String,
    started: i64,
    ready: bool,
    waiting_for: Vec<String>,
    programs: Vec<Program>,
    endpoints: usize,
    addresses_free: u64,
    frontends: usize,
    backends: usize,
    ipcache: usize,
    nodes: usize,
    peers: usize,
    drops: Vec<Drop>,
    proxy_connected: bool,
    load_balancing: Balance,
}

/// How Services are balanced here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Balance {
    mode: &'static str,
    algorithm: &'static str,
    /// Zero without tables.
    maglev_table_size: u16,
    families: Vec<&'static str>,
    /// Where kube-proxy's health is served.
    kube_proxy_health: Option<String>,
    uplinks: Vec<Uplink>,
}

/// A program and how it is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Program {
    name: String,
    attach: String,
    links: u32,
}

/// Packets that were dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Drop {
    reason: &'static str,
    packets: u64,
    bytes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Annotation {
    version: &'static str,
    attach: String,
    programs: Vec<Program>,
    load_balancing: Balance,
    problems: Vec<String>,
}

impl Reporter {
    /// The state now.
    pub(crate) fn report(&self) -> Report {
        let summary = self.summary.borrow().clone();
        let waiting_for = self.waiting_for();
        Report {
            version: VERSION,
            node: self.node.to_string(),
            pod_cidr: self.own.ranges_text(),
            started: self.started.duration_since(UNIX_EPOCH).map_or(0, |at| at.as_secs().cast_signed()),
            ready: waiting_for.is_empty(),
            waiting_for,
            programs: self.programs(),
            endpoints: self.endpoints.list().len(),
            addresses_free: self.endpoints.free(),
            frontends: summary.services.frontends,
            backends: summary.services.backends,
            ipcache: summary.ipcache,
            nodes: summary.nodes,
            peers: summary.peers,
            drops: self.drops(),
            proxy_connected: self.feed.is_followed(),
            load_balancing: self.balance(),
        }
    }

    /// The annotation's text. It holds nothing that changes with every packet, so that writing it stays rare.
    pub(crate) fn annotation(&self) -> String {
        let programs = self.programs();
        let device_kind = programs.iter().find(|program| !program.attach.starts_with("cgroup"));
        let mut problems: Vec<String> =
            self.waiting_for().into_iter().map(|name| format!("not ready: {name}")).collect();
        if self.endpoints.free() == 0 {
            problems.push(format!(
                "the pod range {} is exhausted: no further pod can start here",
                self.own.ranges_text()
            ));
        }
        problems.extend(self.kube_proxy.borrow().hint());
        problems.extend(self.full_maps());
        let without =
            |uplink: &Uplink| uplink.problem.as_ref().map(|why| format!("{}: {why}", uplink.device));
        problems.extend(self.uplinks.borrow().iter().filter_map(without));
        let annotation = Annotation {
            load_balancing: self.balance(),
            version: VERSION,
            attach: device_kind.map(|program| program.attach.clone()).unwrap_or_default(),
            // Counts of links follow the pods; the kind is what matters here.
            programs: programs.into_iter().map(|program| Program { links: 1, ..program }).collect(),
            problems,
        };
        serde_json::to_string(&annotation).unwrap_or_default()
    }

    /// What there is to know of load balancing besides tables.
    pub(crate) fn service_health(&self) -> Value {
        let health = self.health.borrow().clone();
        let check = |(name, check): (&skep_model::NamespacedName, &skep_loadbalancer::HealthCheck)| json!({"service": name, "port": check.port, "localEndpoints": check.local_endpoints});
        let pressure = |map: &MapPressure| {
            let set = |(set, entries): &(u32, usize)| json!({"set": set, "entries": entries});
            let client =
                |(ip, entries): &(std::net::IpAddr, usize)| json!({"client": ip, "entries": entries});
            json!({
                "map": map.map, "entries": map.entries, "capacity": map.capacity, "inserts": map.inserts,
                "evictions": map.evictions,
                "topClients": map.top_clients.iter().map(client).collect::<Vec<_>>(),
                "topSets": map.top_sets.iter().map(set).collect::<Vec<_>>(),
            })
        };
        let services = self.summary.borrow().services;
        let mut balance = json!(self.balance());
        balance["frontends"] = json!(services.frontends);
        balance["backends"] = json!(services.backends);
        json!({
            "synced": health.is_synced,
            "leaving": health.is_leaving,
            "checks": health.checks.iter().map(check).collect::<Vec<_>>(),
            "loadBalancing": balance,
            "maps": self.pressures.borrow().iter().map(pressure).collect::<Vec<_>>(),
            "kubeProxy": &*self.kube_proxy.borrow(),
        })
    }

    fn balance(&self) -> Balance {
        Balance {
            mode: if self.balancing.lb_mode == Mode::Dsr { "dsr" } else { "snat" },
            algorithm: if self.balancing.maglev().is_some() { "maglev" } else { "random" },
            maglev_table_size: self.balancing.maglev().unwrap_or(0),
            families: self.own.addresses().map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" }).collect(),
            kube_proxy_health: self.balancing.kube_proxy_health.0.map(|address| address.to_string()),
            uplinks: self.uplinks.borrow().clone(),
        }
    }

    /// Maps that had to forget what was still in use, and who fills them.
    fn full_maps(&self) -> Vec<String> {
        let full = |map: &MapPressure| {
            let top = map.top_clients.first().map(|(ip, entries)| format!(", {entries} of them of {ip}"));
            let is_full = map.entries.saturating_mul(10)
                >= usize::try_from(map.capacity).unwrap_or(usize::MAX).saturating_mul(9);
            (map.evictions > 0 && is_full).then(|| {
                format!(
                    "{} is full ({} entries{}): connections are being forgotten",
                    map.map,
                    map.entries,
                    top.unwrap_or_default()
                )
            })
        };
        self.pressures.borrow().iter().filter_map(full).collect()
    }

    fn waiting_for(&self) -> Vec<String> {
        self.readiness.report().into_iter().filter(|(_, met)| !met).map(|(name, _)| name).collect()
    }

    fn programs(&self) -> Vec<Program> {
        let mut counts: BTreeMap<(&'static str, &'static str), u32> = BTreeMap::new();
        for attached in self.datapath.attach_report() {
            *counts.entry((attached.program, attached.kind.label())).or_default() += 1;
        }
        let program = |((name, kind), links): ((&str, &str), u32)| Program {
            name: name.to_owned(),
            attach: if kind.starts_with("cgroup") { "cgroup".into() } else { kind.to_owned() },
            links,
        };
        counts.into_iter().map(program).collect()
    }

    fn drops(&self) -> Vec<Drop> {
        let rows = self.datapath.counters().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the drop counters");
            Vec::new()
        });
        let mut sums: BTreeMap<&'static str, (u64, u64)> = BTreeMap::new();
        for (reason, row) in rows.iter().filter_map(|row| Some((row.reason?, row))) {
            let sum = sums.entry(reason.label()).or_default();
            *sum = (sum.0 + row.packets, sum.1 + row.bytes);
        }
        let mut drops: Vec<Drop> =
            sums.into_iter().map(|(reason, (packets, bytes))| Drop { reason, packets, bytes }).collect();
        drops.sort_by_key(|drop| std::cmp::Reverse(drop.packets));
        drops
    }
}

impl From<Report> for wire::ReportReply {
    fn from(report: Report) -> Self {
        let programs = report.programs.into_iter().map(|program| wire::Program {
            name: program.name,
            attach_kind: program.attach,
            links: program.links,
        });
        let drops = report.drops.into_iter().map(|drop| wire::Drop {
            reason: drop.reason.into(),
            packets: drop.packets,
            bytes: drop.bytes,
        });
        wire::ReportReply {
            version: report.version.into(),
            node: report.node,
            started: report.started,
            ready: report.ready,
            waiting_for: report.waiting_for,
            programs: programs.collect(),
            counts: Some(wire::Counts {
                endpoints: report.endpoints as u64,
                frontends: report.frontends as u64,
                backends: report.backends as u64,
                nodes: report.nodes as u64,
                peers: report.peers as u64,
                addresses_free: report.addresses_free,
            }),
            drops: drops.collect(),
            proxy_connected: report.proxy_connected,
            pod_cidr: report.pod_cidr,
        }
    }
}

#[tonic::async_trait]
impl wire::agent_server::Agent for Reporter {
    async fn report(&self, _: Request<wire::ReportRequest>) -> Result<Response<wire::ReportReply>, Status> {
        Ok(Response::new(Reporter::report(self).into()))
    }
}
