//! What is measured, by names that dashboards may rely on. Labels are enums of bounded size.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use skep_datapath::{CounterRow, GcReport};

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
}

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
            nodes: gauge("skep_nodes", "Nodes known.")?,
            conntrack: gauge("skep_conntrack_entries", "Flows remembered, at the last collection.")?,
        })
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
        self.frontends.set(number(summary.frontends));
        self.backends.set(number(summary.backends));
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
