//! What is measured, by names that dashboards may rely on. Labels are enums of bounded size.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use skep_datapath::{CounterRow, GcReport, MapPressure};

use crate::engine::Summary;

/// The agent's metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    packets: IntCounterVec,
    bytes: IntCounterVec,
    table_writes: IntCounterVec,
    endpoints: IntGauge,
    frontends: IntGauge,
    backends: IntGauge,
    nodes: IntGauge,
    conntrack: IntGauge,
    maglev: IntGauge,
    sync_latency: Histogram,
    map_entries: IntGaugeVec,
    map_capacity: IntGaugeVec,
    map_evictions: IntCounterVec,
    map_inserts: IntCounterVec,
    largest_client: IntGaugeVec,
    largest_set: IntGaugeVec,
    cut_flows: IntCounter,
    destroyed_sockets: IntCounter,
}

/// From a millisecond to a minute: the budget is 50 ms.
const LATENCIES: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 10.0, 60.0];

impl Metrics {
    /// Registers everything.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauges = |name: &str, help: &str| -> prometheus::Result<IntGaugeVec> {
            let metric = IntGaugeVec::new(Opts::new(name, help), &["map"])?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let single = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let latency = HistogramOpts::new(
            "skep_service_sync_seconds",
            "From a change of an EndpointSlice to the data path.",
        );
        let sync_latency = Histogram::with_opts(latency.buckets(LATENCIES.to_vec()))?;
        registry.register(Box::new(sync_latency.clone()))?;
        let per_map = &["map"];
        Ok(Metrics {
            packets: counter("skep_packets_total", "Packets by hook and verdict.", &["hook", "verdict"])?,
            bytes: counter("skep_bytes_total", "Bytes by hook and verdict.", &["hook", "verdict"])?,
            table_writes: counter(
                "skep_table_writes_total",
                "Entries by table and verb.",
                &["table", "verb"],
            )?,
            endpoints: gauge("skep_endpoints", "Pod addresses on this node.")?,
            frontends: gauge("skep_frontends", "Service frontends in the data path.")?,
            backends: gauge("skep_backends", "Slots of backends in the data path.")?,
            maglev: gauge("skep_maglev_tables", "Maglev tables in the data path.")?,
            nodes: gauge("skep_nodes", "Nodes known.")?,
            conntrack: gauge("skep_conntrack_entries", "Flows remembered, at the last collection.")?,
            sync_latency,
            map_entries: gauges("skep_map_entries", "Entries of maps that make room by themselves.")?,
            map_capacity: gauges("skep_map_capacity", "Room in maps that make room by themselves.")?,
            map_evictions: counter("skep_map_evictions_total", "Entries forgotten to make room.", per_map)?,
            map_inserts: counter("skep_map_inserts_total", "Entries added by the programs.", per_map)?,
            largest_client: gauges(
                "skep_map_largest_client_entries",
                "Entries of the client with the most.",
            )?,
            largest_set: gauges(
                "skep_map_largest_service_entries",
                "Entries of the Service port with the most.",
            )?,
            cut_flows: single("skep_cut_flows_total", "Flows ended since their backend is gone.")?,
            destroyed_sockets: single(
                "skep_destroyed_sockets_total",
                "Sockets ended since their backend is gone.",
            )?,
        })
    }

    /// How long changes take to reach the data path.
    pub(crate) fn sync_latency(&self) -> Histogram {
        self.sync_latency.clone()
    }

    /// Takes over how full the maps are.
    pub(crate) fn observe_pressure(&self, maps: &[MapPressure]) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        for map in maps {
            let labels = [map.map];
            self.map_entries.with_label_values(&labels).set(number(map.entries));
            self.map_capacity.with_label_values(&labels).set(map.capacity.into());
            raise(&self.map_evictions, &labels, map.evictions);
            raise(&self.map_inserts, &labels, map.inserts);
            let client = map.top_clients.first().map_or(0, |(_, entries)| *entries);
            self.largest_client.with_label_values(&labels).set(number(client));
            let set = map.top_sets.first().map_or(0, |(_, entries)| *entries);
            self.largest_set.with_label_values(&labels).set(number(set));
        }
    }

    /// Counts what was ended.
    pub(crate) fn observe_cut(&self, flows: usize, sockets: usize) {
        self.cut_flows.inc_by(flows as u64);
        self.destroyed_sockets.inc_by(sockets as u64);
    }

    /// Takes over what the kernel counts.
    pub(crate) fn observe_counters(&self, rows: &[CounterRow]) {
        for row in rows {
            let verdict = row.reason.map_or("passed", |reason| reason.label());
            let labels = [row.hook.label(), verdict];
            raise(&self.packets, &labels, row.packets);
            raise(&self.bytes, &labels, row.bytes);
        }
    }

    /// Takes over what the engine knows.
    pub(crate) fn observe_summary(&self, summary: &Summary, endpoints: usize) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.endpoints.set(number(endpoints));
        self.frontends.set(number(summary.services.frontends));
        self.backends.set(number(summary.services.backends));
        self.maglev.set(number(summary.services.maglev));
        self.nodes.set(number(summary.nodes));
        for (table, counters) in &summary.counters {
            let verbs = [
                ("update", counters.updated),
                ("delete", counters.deleted),
                ("prune", counters.pruned),
                ("fail", counters.failed),
            ];
            for (verb, count) in verbs {
                raise(&self.table_writes, &[table, verb], count);
            }
        }
    }

    /// Takes over what a collection saw.
    pub(crate) fn observe_conntrack(&self, report: &GcReport) {
        let left = report.seen.saturating_sub(report.removed);
        self.conntrack.set(i64::try_from(left).unwrap_or(i64::MAX));
    }
}

/// Brings a counter up to a total that is kept elsewhere.
fn raise(metric: &IntCounterVec, labels: &[&str], total: u64) {
    let counter = metric.with_label_values(labels);
    counter.inc_by(total.saturating_sub(counter.get()));
}

#[cfg(test)]
mod tests {
    use skep_abi::{DropReason, Hook};

    use super::*;

    #[test]
    fn totals_of_the_kernel_are_taken_over_once() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let row =
            CounterRow { hook: Hook::FromPod, reason: Some(DropReason::NoBackend), packets: 3, bytes: 90 };
        metrics.observe_counters(&[row]);
        metrics.observe_counters(&[row]);
        assert_eq!(metrics.packets.with_label_values(&["from_pod", "no_backend"]).get(), 3);
        assert!(registry.gather().iter().any(|family| family.name() == "skep_packets_total"));
    }
}
