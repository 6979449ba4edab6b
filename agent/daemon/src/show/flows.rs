//! Flows, with the Service that translated each.

use serde::Serialize;
use skep_datapath::{CtEntry, CtHalf};

use super::lb::Names;

/// A flow. Of a translated one there are two, one for each direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FlowRow {
    source: String,
    destination: String,
    protocol: String,
    state: String,
    half: &'static str,
    translated: String,
    peer: String,
    idle_seconds: u32,
    service: Option<String>,
}

/// A flow whose source is translated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct NatRow {
    #[serde(flatten)]
    flow: FlowRow,
    /// The source that the backend sees.
    snat: String,
}

fn protocol(number: u8) -> String {
    let name = skep_model::Protocol::from_number(number).map(|protocol| protocol.name().to_owned());
    name.unwrap_or_else(|| match number {
        1 => "ICMP".into(),
        58 => "ICMPv6".into(),
        other => other.to_string(),
    })
}

fn row(entry: &CtEntry, names: &Names) -> FlowRow {
    let text = |address: Option<std::net::SocketAddr>| address.map(|a| a.to_string()).unwrap_or_default();
    let (service, _) = names.set(entry.set);
    FlowRow {
        source: entry.source.to_string(),
        destination: entry.destination.to_string(),
        protocol: protocol(entry.protocol),
        state: format!("{:?}", entry.state).to_lowercase(),
        half: match entry.half {
            CtHalf::Whole => "whole",
            CtHalf::ToBackend => "toBackend",
            CtHalf::FromBackend => "fromBackend",
            CtHalf::Forwarded => "forwarded",
        },
        translated: text(entry.translated),
        peer: text(entry.peer),
        idle_seconds: entry.idle,
        service: Some(service).filter(|service| !service.is_empty()),
    }
}

/// Every flow.
pub(super) fn flows(entries: &[CtEntry], names: &Names) -> Vec<FlowRow> {
    entries.iter().map(|entry| row(entry, names)).collect()
}

/// Flows with another source, each once.
pub(super) fn translations(entries: &[CtEntry], names: &Names) -> Vec<NatRow> {
    let translated = entries.iter().filter(|entry| entry.half == CtHalf::ToBackend && entry.peer.is_some());
    translated
        .map(|entry| {
            let flow = row(entry, names);
            NatRow { snat: flow.peer.clone(), flow }
        })
        .collect()
}
