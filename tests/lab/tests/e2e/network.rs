//! Nodes, Services and names.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use skep_test_lab::cluster::Cluster;
use skep_test_lab::command::eventually;

pub(crate) fn three_nodes_are_ready_with_address_and_pod_range(cluster: &Cluster) -> Result<()> {
    cluster.wait_ready(3, Duration::from_secs(30))?;
    let nodes = cluster.json("get nodes")?;
    let items = nodes["items"].as_array().cloned().unwrap_or_default();
    let ranges: BTreeSet<&str> = items.iter().filter_map(|node| node["spec"]["podCIDR"].as_str()).collect();
    ensure!(ranges.len() == 3, "pod ranges: {ranges:?}");
    let wide = cluster.kubectl("get nodes -o wide")?;
    ensure!(wide.contains("10.89.0.13") && wide.contains("containerd://"), "{wide}");
    Ok(())
}

pub(crate) fn web_is_answered_by_every_replica_on_every_node(cluster: &Cluster) -> Result<()> {
    eventually(Duration::from_secs(60), || {
        let pods = cluster.ready_pods("app=web")?;
        let nodes: BTreeSet<&str> = pods.iter().map(|(_, node)| node.as_str()).collect();
        ensure!(pods.len() == 3 && nodes.len() == 3, "web pods: {pods:?}");
        let answers = cluster.ask_web(40)?;
        ensure!(answers.len() == 40, "{} of 40 requests were answered", answers.len());
        for (name, node) in &pods {
            ensure!(answers.contains(&format!("{name} on {node}")), "{name} never answered: {answers:?}");
        }
        Ok(())
    })
}

pub(crate) fn names_of_services_resolve_in_pods(cluster: &Cluster) -> Result<()> {
    let address = cluster.kubectl("get service web -o jsonpath={.spec.clusterIP}")?;
    for name in ["web.default.svc.cluster.local", "kubernetes.default.svc.cluster.local"] {
        let answer = cluster.in_client(&format!("nslookup {name} 10.96.0.10"))?;
        ensure!(
            answer.contains(if name.starts_with("web") { &address } else { "10.96.0.1" }),
            "{name}: {answer}"
        );
    }
    cluster.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: headless}, spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}}",
    )?;
    eventually(Duration::from_secs(20), || {
        let answer = cluster.in_client("nslookup headless.default.svc.cluster.local 10.96.0.10")?;
        ensure!(answer.matches("10.244.").count() == 3, "{answer}");
        Ok(())
    })?;
    cluster.kubectl("delete service headless").map(drop)
}

pub(crate) fn other_names_fail_at_once_without_a_resolver(cluster: &Cluster) -> Result<()> {
    let start = Instant::now();
    cluster.in_client("if nslookup example.org. 10.96.0.10; then exit 1; fi")?;
    ensure!(start.elapsed() < Duration::from_secs(4), "took {:?}", start.elapsed());
    Ok(())
}

pub(crate) fn pods_reach_the_api_through_its_service(cluster: &Cluster) -> Result<()> {
    cluster.in_client("nc -w 3 kubernetes 443 < /dev/null").map(drop)
}

pub(crate) fn status_is_healthy_and_says_so_in_json(cluster: &Cluster) -> Result<()> {
    let screen = eventually(Duration::from_secs(20), || cluster.status(&[])?.ok())?;
    ensure!(screen.contains("3 of 3 Ready") && screen.contains("no problems"), "{screen}");
    let report: serde_json::Value = serde_json::from_str(&cluster.status(&["-o", "json"])?.ok()?)?;
    ensure!(report["nodes"].as_object().is_some_and(|nodes| nodes.len() == 3), "{report}");
    Ok(())
}
