//! What a cluster of two families has besides each of them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use skep_test_lab::cluster::Cluster;
use skep_test_lab::command::eventually;

use super::each::{addresses_of, fetch};

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().cloned().unwrap_or_default();
    list.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

fn families(texts: &[String]) -> Vec<&'static str> {
    texts.iter().map(|text| if text.contains(':') { "IPv6" } else { "IPv4" }).collect()
}

pub(crate) fn nodes_have_addresses_and_ranges_of_both_families(cluster: &Cluster) -> Result<()> {
    cluster.wait_ready(2, Duration::from_secs(30))?;
    let nodes = cluster.json("get nodes")?;
    let mut ranges = BTreeSet::new();
    for node in nodes["items"].as_array().context("no nodes")? {
        let own = texts(&node["spec"]["podCIDRs"]);
        ensure!(families(&own) == ["IPv4", "IPv6"], "{own:?}");
        ensure!(node["spec"]["podCIDR"] == own[0].as_str() && own[1].ends_with("/64"), "{own:?}");
        ranges.extend(own);
        let listed = node["status"]["addresses"].as_array().context("no addresses")?;
        let internal: Vec<&str> = listed
            .iter()
            .filter(|address| address["type"] == "InternalIP")
            .filter_map(|address| address["address"].as_str())
            .collect();
        ensure!(internal.len() == 2 && internal[1].starts_with("fd00:89::1"), "{internal:?}");
    }
    ensure!(ranges.len() == 4, "{ranges:?}");
    Ok(())
}

pub(crate) fn a_pod_knows_its_addresses_of_both_families(cluster: &Cluster) -> Result<()> {
    let pod = r#"{apiVersion: v1, kind: Pod, metadata: {name: knows}, spec: {terminationGracePeriodSeconds: 0,
        containers: [{name: c, image: "skep.local/demo-client:dev", imagePullPolicy: IfNotPresent, env: [
        {name: IPS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}},
        {name: HOSTS, valueFrom: {fieldRef: {fieldPath: status.hostIPs}}}]}]}}"#;
    cluster.apply(pod)?;
    cluster.kubectl("wait pod knows --for=condition=Ready --timeout=60s")?;
    let addresses = addresses_of(cluster, "pod knows")?;
    ensure!(addresses.len() == 2 && addresses[0].is_ipv4() && addresses[1].is_ipv6(), "{addresses:?}");
    let wanted = format!("{},{}", addresses[0], addresses[1]);
    let seen = cluster
        .kubectl_words(&["exec", "knows", "--", "sh", "-c", "echo $IPS $HOSTS; cat /etc/hosts"], b"")?;
    let seen = seen.ok()?;
    ensure!(seen.starts_with(&format!("{wanted} 10.89.0.1")), "{seen}");
    ensure!(addresses.iter().all(|ip| seen.contains(&format!("{ip}\tknows"))), "{seen}");
    let held = cluster.kubectl("exec knows -- ip -6 addr show dev eth0")?;
    ensure!(held.contains(&addresses[1].to_string()) && !held.contains("tentative"), "{held}");
    cluster.kubectl("delete pod knows").map(drop)
}

pub(crate) fn a_service_gains_and_loses_its_second_family(cluster: &Cluster) -> Result<()> {
    let patch = |policy: &str| {
        let patch = format!(r#"{{"spec":{{"ipFamilyPolicy":"{policy}"}}}}"#);
        cluster.kubectl_words(&["patch", "service", "web", "--type=merge", "-p", &patch], b"")?.ok()
    };
    patch("SingleStack")?;
    let single = texts(&cluster.json("get service web")?["spec"]["clusterIPs"]);
    ensure!(families(&single) == ["IPv4"], "{single:?}");
    patch("PreferDualStack")?;
    let dual = texts(&cluster.json("get service web")?["spec"]["clusterIPs"]);
    ensure!(families(&dual) == ["IPv4", "IPv6"] && dual[0] == single[0], "{dual:?}");
    let second: IpAddr = dual[1].parse()?;
    eventually(Duration::from_secs(20), || fetch(cluster, second, 80))?;
    let slices = cluster.json("get endpointslices -l kubernetes.io/service-name=web")?;
    let kinds: BTreeSet<&str> = slices["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|slice| slice["addressType"].as_str())
        .collect();
    ensure!(kinds == BTreeSet::from(["IPv4", "IPv6"]), "{kinds:?}");
    patch("SingleStack")?;
    eventually(Duration::from_secs(20), || {
        ensure!(fetch(cluster, second, 80).is_err(), "the released address still answers");
        Ok(())
    })
}

pub(crate) fn headless_services_have_addresses_of_both_families(cluster: &Cluster) -> Result<()> {
    cluster.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: headless}, spec: {clusterIP: None, \
         ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports: [{port: 80}]}}",
    )?;
    eventually(Duration::from_secs(20), || {
        let answer = cluster.in_client("nslookup headless.default.svc.cluster.local fd00:96::a")?;
        let (v4, v6) = (answer.matches("10.244.").count(), answer.matches("fd00:244:").count());
        ensure!(v4 == 3 && v6 == 3, "{answer}");
        Ok(())
    })?;
    cluster.kubectl("delete service headless").map(drop)
}
