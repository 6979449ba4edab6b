//! Resource use of this node's containers as the runtime measures it, in the two forms that collectors read.

use std::{collections::BTreeMap, fmt::Write};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use skep_wire::cri::v1;

use super::routes::{Api, Refusal};
use crate::{cri::labels, pod::model::PodId};

pub(crate) async fn summary(State(api): State<Api>) -> Result<Response, Refusal> {
    let stats = api.shared.cri.stats().await?;
    let mut pods: BTreeMap<PodId, Vec<Value>> = BTreeMap::new();
    for one in stats {
        if let Some((id, value)) = container(one) {
            pods.entry(id).or_default().push(value);
        }
    }
    let pods: Vec<_> = pods
        .into_iter()
        .map(|(id, containers)| {
            json!({"podRef": {"name": id.name, "namespace": id.namespace, "uid": id.uid}, "containers": containers})
        })
        .collect();
    let node = json!({"nodeName": api.shared.config.node_name, "startTime": Timestamp::now()});
    Ok(Json(json!({"node": node, "pods": pods})).into_response())
}

fn container(stats: v1::ContainerStats) -> Option<(PodId, Value)> {
    // Containers that have ended are listed without figures.
    stats.cpu.as_ref()?;
    let attributes = stats.attributes?;
    let id = labels::pod_of(&attributes.labels)?;
    let number = |value: Option<v1::UInt64Value>| value.map(|v| v.value);
    let time = |nanoseconds: i64| Timestamp::from_nanosecond(nanoseconds.into()).ok();
    let cpu = stats.cpu.map(|c| {
        json!({"time": time(c.timestamp), "usageNanoCores": number(c.usage_nano_cores),
            "usageCoreNanoSeconds": number(c.usage_core_nano_seconds)})
    });
    let memory = stats.memory.map(|m| {
        json!({"time": time(m.timestamp), "workingSetBytes": number(m.working_set_bytes),
            "usageBytes": number(m.usage_bytes), "rssBytes": number(m.rss_bytes)})
    });
    let name = attributes.metadata.map(|m| m.name).unwrap_or_default();
    Some((id, json!({"name": name, "cpu": cpu, "memory": memory})))
}

pub(crate) async fn resource(State(api): State<Api>) -> Result<Response, Refusal> {
    let stats = api.shared.cri.stats().await?;
    let mut cpu = String::from("# TYPE container_cpu_usage_seconds_total counter\n");
    let mut memory = String::from("# TYPE container_memory_working_set_bytes gauge\n");
    for one in stats {
        let Some(attributes) = one.attributes else { continue };
        let Some(id) = labels::pod_of(&attributes.labels) else { continue };
        let name = attributes.metadata.map(|m| m.name).unwrap_or_default();
        let labels = format!("{{container=\"{name}\",namespace=\"{}\",pod=\"{}\"}}", id.namespace, id.name);
        if let Some(used) = one.cpu.and_then(|c| c.usage_core_nano_seconds) {
            // Writing to a String cannot fail.
            let _ = writeln!(cpu, "container_cpu_usage_seconds_total{labels} {}", used.value as f64 / 1e9);
        }
        if let Some(used) = one.memory.and_then(|m| m.working_set_bytes) {
            let _ = writeln!(memory, "container_memory_working_set_bytes{labels} {}", used.value);
        }
    }
    Ok(([("content-type", "text/plain; version=0.0.4")], cpu + &memory).into_response())
}
