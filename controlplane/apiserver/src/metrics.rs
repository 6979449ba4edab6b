//! Counters of the API server, labelled by verb, group and resource as the registry knows them: never by name.

use std::time::Duration;

use prometheus::{Encoder, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};

use crate::request_info::RequestInfo;

/// The API server's metrics.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
}

/// Labels of a request.
pub struct Labels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
}

impl Labels {
    /// Labels of a parsed request line.
    pub fn of(info: &RequestInfo) -> Self {
        let resource = if info.is_resource { info.resource.clone() } else { String::new() };
        Self {
            verb: verb(&info.verb).to_owned(),
            group: info.group.clone(),
            version: info.version.clone(),
            resource,
            subresource: info.subresource.clone().unwrap_or_default(),
        }
    }
}

/// The verbs that are counted by name; clients may invent others.
fn verb(verb: &str) -> &'static str {
    const KNOWN: [&str; 13] = [
        "GET",
        "LIST",
        "WATCH",
        "CREATE",
        "UPDATE",
        "PATCH",
        "DELETE",
        "DELETECOLLECTION",
        "HEAD",
        "POST",
        "PUT",
        "OPTIONS",
        "CONNECT",
    ];
    KNOWN.into_iter().find(|known| known.eq_ignore_ascii_case(verb)).unwrap_or("OTHER")
}

impl Metrics {
    /// Registers every metric.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let requests = IntCounterVec::new(
            Opts::new("apiserver_request_total", "Requests by verb, resource and code."),
            &["verb", "group", "version", "resource", "subresource", "code"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new("apiserver_request_duration_seconds", "Time to the head of the answer.")
                .buckets(vec![0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0]),
            &["verb", "group", "version", "resource", "subresource"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        Ok(Self { registry, requests, durations })
    }

    /// Counts one answered request. Refused requests are not labelled by what they named, which anybody may invent.
    pub fn observe(&self, labels: &Labels, code: u16, took: Duration) {
        let known = !matches!(code, 401 | 403 | 404 | 405);
        let text = |value: &'_ String| if known { value.clone() } else { String::new() };
        let (group, version) = (text(&labels.group), text(&labels.version));
        let (resource, sub) = (text(&labels.resource), text(&labels.subresource));
        let code = code.to_string();
        self.requests.with_label_values(&[&labels.verb, &group, &version, &resource, &sub, &code]).inc();
        self.durations
            .with_label_values(&[&labels.verb, &group, &version, &resource, &sub])
            .observe(took.as_secs_f64());
    }

    /// The exposition text.
    pub fn render(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // Writing to memory fails only on metrics of mixed types, which registration has refused.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut out);
        out
    }
}
