//! What the node DNS counts. Labels are bounded: response codes and two sources, never a name.

use hickory_proto::op::ResponseCode;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Who made an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The cluster's own zone.
    Cluster,
    /// A resolver of the node.
    Upstream,
}

/// The counters of one process.
#[derive(Debug, Clone)]
pub struct Metrics {
    responses: IntCounterVec,
    overloaded: IntCounter,
    /// Services in the view.
    pub services: IntGauge,
    /// 1 while the agent feeds us, else 0.
    pub feed_connected: IntGauge,
}

impl Metrics {
    /// Registers the counters.
    ///
    /// # Errors
    /// When one of the names is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let responses = IntCounterVec::new(
            Opts::new("skep_dns_responses_total", "DNS replies by response code and source."),
            &["rcode", "source"],
        )?;
        let overloaded = IntCounter::new(
            "skep_dns_forward_overload_total",
            "Queries not forwarded because too many were in flight.",
        )?;
        let services = IntGauge::new("skep_dns_services", "Services that the node DNS knows.")?;
        let feed_connected =
            IntGauge::new("skep_dns_feed_connected", "Whether the agent feeds the node DNS (1) or not (0).")?;
        registry.register(Box::new(responses.clone()))?;
        registry.register(Box::new(overloaded.clone()))?;
        registry.register(Box::new(services.clone()))?;
        registry.register(Box::new(feed_connected.clone()))?;
        Ok(Self { responses, overloaded, services, feed_connected })
    }

    /// Counts a reply.
    pub fn answered(&self, source: Source, code: ResponseCode) {
        let source = match source {
            Source::Cluster => "cluster",
            Source::Upstream => "upstream",
        };
        self.responses.with_label_values(&[rcode(code), source]).inc();
    }

    /// Counts a query that was not forwarded.
    pub fn overloaded(&self) {
        self.overloaded.inc();
    }
}

fn rcode(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        _ => "other",
    }
}
