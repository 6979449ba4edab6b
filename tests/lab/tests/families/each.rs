//! What works in every family that a cluster has. The demo's client asks; its web pods answer with their name.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use skep_test_lab::cluster::Cluster;
use skep_test_lab::command::{eventually, run};

/// Asks for a page from the client pod.
pub(crate) fn fetch(cluster: &Cluster, ip: IpAddr, port: u16) -> Result<String> {
    let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
    let answer = cluster.in_client(&format!("timeout 3 wget -qO- http://{host}:{port}/"))?;
    Ok(answer.trim().to_owned())
}

/// A pod's addresses.
pub(crate) fn addresses_of(cluster: &Cluster, pod: &str) -> Result<Vec<IpAddr>> {
    let status = cluster.json(&format!("get {pod}"))?["status"].clone();
    status["podIPs"].as_array().into_iter().flatten().map(|entry| Ok(text(&entry["ip"]).parse()?)).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The families that the cluster has, by whether they are IPv6.
fn families(cluster: &Cluster) -> Result<BTreeSet<bool>> {
    let ranges = cluster.json("get servicecidr kubernetes")?;
    Ok(ranges["spec"]["cidrs"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|range| text(range).contains(':'))
        .collect())
}

fn web_pods(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    eventually(Duration::from_secs(60), || {
        let pods = cluster.ready_pods("app=web")?;
        let nodes: BTreeSet<&str> = pods.iter().map(|(_, node)| node.as_str()).collect();
        ensure!(pods.len() == 3 && nodes.len() == 2, "web pods: {pods:?}");
        Ok(pods)
    })
}

pub(crate) fn pods_answer_each_other_on_every_node(cluster: &Cluster) -> Result<()> {
    for (name, node) in web_pods(cluster)? {
        let addresses = addresses_of(cluster, &format!("pod {name}"))?;
        ensure!(addresses.len() == families(cluster)?.len(), "{addresses:?}");
        for ip in addresses {
            let answer = fetch(cluster, ip, 80).with_context(|| format!("{ip} on {node}"))?;
            ensure!(answer == format!("{name} on {node}"), "{ip}: {answer}");
            let ping = if ip.is_ipv6() { "ping6" } else { "ping" };
            cluster.in_client(&format!("{ping} -c 1 -W 2 {ip}")).with_context(|| format!("{ping} {ip}"))?;
        }
    }
    Ok(())
}

/// The kubelet's port on every node's addresses, from a pod; and every pod, from each node.
pub(crate) fn nodes_and_their_pods_answer_each_other(cluster: &Cluster) -> Result<()> {
    let nodes = cluster.json("get nodes")?;
    let pods = web_pods(cluster)?;
    for node in nodes["items"].as_array().into_iter().flatten() {
        let machine = cluster.machine(text(&node["metadata"]["name"]));
        let all = node["status"]["addresses"].as_array().into_iter().flatten();
        for address in all.filter(|address| address["type"] == "InternalIP") {
            let ip = text(&address["address"]);
            cluster
                .in_client(&format!("nc -w 3 {ip} 10250 < /dev/null"))
                .with_context(|| format!("node {ip}"))?;
        }
        for (name, _) in &pods {
            for ip in addresses_of(cluster, &format!("pod {name}"))? {
                let netns = format!("--net=/run/netns/{machine}");
                let mut dial = std::process::Command::new("nsenter");
                dial.args([&netns, "timeout", "3", "bash", "-c", &format!("</dev/tcp/{ip}/80")]);
                run(&mut dial, b"", Duration::from_secs(5))?
                    .ok()
                    .with_context(|| format!("{machine} to {name} at {ip}"))?;
            }
        }
    }
    Ok(())
}

pub(crate) fn a_service_is_answered_by_every_replica(cluster: &Cluster) -> Result<()> {
    let wanted = families(cluster)?.len();
    let patch = r#"{"spec":{"ipFamilyPolicy":"PreferDualStack"}}"#;
    cluster.kubectl_words(&["patch", "service", "web", "--type=merge", "-p", patch], b"")?.ok()?;
    let service = cluster.json("get service web")?;
    let addresses = service["spec"]["clusterIPs"].as_array().cloned().unwrap_or_default();
    ensure!(addresses.len() == wanted, "{addresses:?}");
    let pods: BTreeSet<String> =
        web_pods(cluster)?.into_iter().map(|(name, node)| format!("{name} on {node}")).collect();
    for ip in addresses.iter().map(text) {
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        let script =
            format!("i=0; while [ $i -lt 30 ]; do timeout 3 wget -qO- http://{host}/; i=$((i+1)); done");
        eventually(Duration::from_secs(20), || {
            let answers: Vec<String> = cluster.in_client(&script)?.lines().map(str::to_owned).collect();
            ensure!(answers.len() == 30, "{ip}: {} of 30 requests were answered", answers.len());
            let seen: BTreeSet<String> = answers.into_iter().collect();
            ensure!(seen == pods, "{ip}: {seen:?}");
            Ok(())
        })?;
    }
    Ok(())
}

pub(crate) fn names_have_addresses_of_the_services_families(cluster: &Cluster) -> Result<()> {
    let service = cluster.json("get service web")?;
    let dns = cluster.json("get service kube-dns -n kube-system")?;
    for server in dns["spec"]["clusterIPs"].as_array().into_iter().flatten().map(text) {
        let answer = eventually(Duration::from_secs(20), || {
            cluster.in_client(&format!("nslookup web.default.svc.cluster.local {server}"))
        })?;
        for ip in service["spec"]["clusterIPs"].as_array().into_iter().flatten().map(text) {
            ensure!(answer.contains(ip), "{server}: {answer}");
        }
    }
    cluster.web_answers()
}

pub(crate) fn pods_reach_the_api_through_its_service(cluster: &Cluster) -> Result<()> {
    cluster.in_client("nc -w 3 kubernetes 443 < /dev/null").map(drop)
}

/// Full segments in both directions: an MTU that forgets the tunnel's header shows here.
pub(crate) fn large_answers_cross_the_tunnel(cluster: &Cluster) -> Result<()> {
    const BYTES: usize = 3_000_000;
    let fill = format!("head -c {BYTES} /dev/zero > /www/large");
    for (name, _) in web_pods(cluster)? {
        cluster.kubectl_words(&["exec", &name, "--", "sh", "-c", &fill], b"")?.ok()?;
        for ip in addresses_of(cluster, &format!("pod {name}"))? {
            let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
            let count = cluster.in_client(&format!("timeout 10 wget -qO- http://{host}/large | wc -c"))?;
            ensure!(count.trim() == BYTES.to_string(), "{ip}: {count}");
        }
    }
    Ok(())
}

pub(crate) fn probes_logs_exec_and_port_forward_work(cluster: &Cluster) -> Result<()> {
    // Ready says that the HTTP probe of each replica was answered at its first address.
    let (name, node) = web_pods(cluster)?.pop().context("no web pod")?;
    let said = cluster.kubectl(&format!("exec {name} -- hostname"))?;
    ensure!(said.trim() == name, "{said}");
    ensure!(cluster.kubectl(&format!("logs {name}"))?.contains("serving as"), "no logs of {name}");
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let ports = format!("{port}:80");
    let mut forward = cluster
        .kubectl_command(&["port-forward", &format!("pod/{name}"), &ports])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let answer = eventually(Duration::from_secs(20), || {
        let mut ask = std::process::Command::new("curl");
        ask.args(["-s", "-m", "3", &format!("http://127.0.0.1:{port}/")]);
        let answer = run(&mut ask, b"", Duration::from_secs(5))?.ok()?;
        if answer.is_empty() { bail!("no answer") } else { Ok(answer) }
    });
    forward.kill()?;
    forward.wait()?;
    ensure!(answer?.trim() == format!("{name} on {node}"), "another pod answered");
    Ok(())
}
