//! What the terminal shows of Services on real data.

use anyhow::{Result, ensure};
use serde_json::Value;
use skep_test_lab::asking::NAMESPACE;
use skep_test_lab::cluster::Cluster;
use skep_test_lab::command::eventually;

use crate::services::{INSIDE, OUTSIDE, SOON, address, ask_often, pod_address, reach, with};

/// Words that an answer holds, once it does.
fn shows(cluster: &Cluster, line: &str, words: &[&str]) -> Result<()> {
    eventually(SOON, || {
        let text = cluster.ask_skep(line)?.ok()?;
        for word in words {
            ensure!(text.contains(word), "skep {line}: no {word:?} in:\n{text}");
        }
        Ok(())
    })
}

pub(crate) fn services_and_maps_are_shown_as_they_are(cluster: &Cluster) -> Result<()> {
    with(cluster, "node-port", || {
        let ip = address(cluster, "node-port")?;
        ask_often(cluster, OUTSIDE, "tcp 10.89.0.11:30080", 30)?;
        reach(cluster, INSIDE, &format!("tcp {ip}:80"))?;
        let (name, pod) =
            (format!("{NAMESPACE}/node-port"), format!("{}:8080", pod_address(cluster, "two")?));
        shows(cluster, "service list", &["SERVICE", &name, "NodePort", "3 of 3", "default/kubernetes"])?;
        let frontend = format!("{ip}:80/TCP");
        shows(cluster, &format!("service get {name}"), &[&name, &frontend, ":30080/TCP", &pod, "node-2"])?;
        shows(cluster, &format!("bpf lb --service {name}"), &["node-1", "node-3", &frontend, &pod])?;
        shows(cluster, &format!("bpf lb --frontend {ip}:80 --protocol udp --node node-2"), &["/UDP"])?;
        shows(cluster, "bpf ct --node node-1 --frontend 10.89.1.2", &["10.89.1.2:", &name])?;
        shows(cluster, "bpf nat --node node-1 --frontend 10.89.1.2", &["10.89.1.2:", "10.89.0.11:30080"])?;
        shows(cluster, &format!("bpf maglev --service {name} --node node-1"), &[&pod, "%"])?;
        let json: Value = serde_json::from_str(&cluster.ask_skep("bpf lb -o json")?.ok()?)?;
        ensure!(json["node-2"].as_array().is_some_and(|rows| !rows.is_empty()), "{json}");
        let json: Value =
            serde_json::from_str(&cluster.ask_skep(&format!("service get {name} -o json"))?.ok()?)?;
        ensure!(json["node-1"]["frontends"].as_array().is_some_and(|rows| rows.len() >= 4), "{json}");
        Ok(())
    })?;
    with(cluster, "affinity", || {
        let server = format!("tcp {}:80", address(cluster, "affinity")?);
        eventually(SOON, || {
            reach(cluster, INSIDE, &server)?;
            let text = cluster.ask_skep("bpf affinity --node node-1")?.ok()?;
            ensure!(text.contains(&format!("{NAMESPACE}/affinity")), "{text}");
            Ok(())
        })
    })
}

pub(crate) fn status_shows_how_services_are_balanced(cluster: &Cluster) -> Result<()> {
    shows(
        cluster,
        "status",
        &["services       snat", "maglev", "eth0", "CONNECTIONS", "health port    0.0.0.0:10256"],
    )?;
    let json: Value = serde_json::from_str(&cluster.ask_skep("status -o json")?.ok()?)?;
    ensure!(json["nodes"]["node-1"]["balancing"]["loadBalancing"]["mode"] == "snat", "{json}");
    Ok(())
}
