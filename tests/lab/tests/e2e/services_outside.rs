//! Services for clients of the world: node ports, balancer addresses, host ports.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use skep_test_lab::asking::NAMESPACE;
use skep_test_lab::cluster::Cluster;
use skep_test_lab::command::{eventually, run};
use skep_test_lab::outside;

use crate::services::{
    ALL, HOST, INSIDE, NODES, OTHER, OUTSIDE, SOON, address, ask_often, balancer_address, reach, unreachable,
    with,
};

pub(crate) fn node_ports_answer_on_every_node_but_not_on_loopback(cluster: &Cluster) -> Result<()> {
    with(cluster, "node-port", || {
        for (_, node) in NODES {
            let tally = ask_often(cluster, OUTSIDE, &format!("tcp {node}:30080"), 60)?;
            tally.only(&ALL)?;
            ask_often(cluster, OUTSIDE, &format!("udp {node}:30081"), 60)?.only(&ALL)?;
            OUTSIDE.must(cluster, &format!("tcp {node}:30080 --keep --count 50"))?;
            OUTSIDE.must(cluster, &format!("udp {node}:30081 --keep --count 50"))?;
        }
        for asker in [INSIDE, OTHER, HOST] {
            ask_often(cluster, asker, "tcp 10.89.0.12:30080", 20)?.only(&ALL)?;
            ask_often(cluster, asker, "udp 10.89.0.13:30081", 20)?.only(&ALL)?;
        }
        HOST.must_not(cluster, "tcp 127.0.0.1:30080 --wait 500")
    })
}

pub(crate) fn large_answers_and_fragments_pass_the_node_ports(cluster: &Cluster) -> Result<()> {
    with(cluster, "node-port", || {
        reach(cluster, OUTSIDE, "tcp 10.89.0.11:30080")?;
        for (_, node) in NODES {
            OUTSIDE.must(cluster, &format!("tcp {node}:30080 --bulk 500000 --count 6"))?;
            OUTSIDE.must(cluster, &format!("udp {node}:30081 --bulk 4000 --count 6"))?;
        }
        let ip = address(cluster, "node-port")?;
        INSIDE.must(cluster, &format!("udp {ip}:80 --bulk 4000 --count 9")).map(drop)
    })
}

pub(crate) fn external_local_keeps_the_clients_address_and_names_its_nodes(cluster: &Cluster) -> Result<()> {
    with(cluster, "external-local", || {
        let tally = ask_often(cluster, OUTSIDE, "tcp 10.89.0.11:30090", 20)?;
        tally.only(&["one"])?;
        tally.seen_as(outside::ADDRESS)?;
        OUTSIDE.must_not(cluster, "tcp 10.89.0.12:30090 --wait 700 --count 2")?;
        // Clients of the cluster are served wherever they are.
        ask_often(cluster, OTHER, "tcp 10.89.0.13:30090", 10)?.only(&["one"])?;
        let balancer = balancer_address(cluster, "external-local")?;
        let tally = ask_often(cluster, OUTSIDE, &format!("tcp {balancer}:80"), 20)?;
        tally.seen_as(outside::ADDRESS)?;
        for (node, address) in NODES {
            let wanted = if node == "node-1" { "200" } else { "503" };
            eventually(SOON, || {
                let said = fetch(cluster, &format!("http://{address}:30199/healthz"))?;
                ensure!(said.contains(wanted), "{node} says {said}");
                Ok(())
            })?;
        }
        Ok(())
    })
}

pub(crate) fn the_health_port_of_kube_proxy_answers_on_every_node(cluster: &Cluster) -> Result<()> {
    crate::services::prepare(cluster)?;
    for (_, node) in NODES {
        let said = fetch(cluster, &format!("http://{node}:10256/healthz"))?;
        ensure!(said.contains("200") && said.contains("lastUpdated"), "{node}: {said}");
    }
    Ok(())
}

/// Status and body, as seen from outside.
fn fetch(cluster: &Cluster, url: &str) -> Result<String> {
    let program = cluster.program("skep-demo");
    let mut command = outside::command(cluster, &program.to_string_lossy());
    Ok(run(command.args(["fetch", url]), b"", Duration::from_secs(10))?.out)
}

pub(crate) fn a_balancer_address_is_given_announced_and_served(cluster: &Cluster) -> Result<()> {
    with(cluster, "load-balancer", || {
        let ip = balancer_address(cluster, "load-balancer")?;
        let last: u8 = ip
            .strip_prefix("10.89.0.")
            .and_then(|last| last.parse().ok())
            .context("no address of the pool")?;
        ensure!((224..240).contains(&last), "{ip} is not of the pool");
        let tally = ask_often(cluster, OUTSIDE, &format!("tcp {ip}:80"), 60)?;
        tally.only(&ALL)?;
        for asker in [INSIDE, OTHER, HOST] {
            ask_often(cluster, asker, &format!("tcp {ip}:80"), 20)?.only(&ALL)?;
        }
        OUTSIDE.must_not(cluster, &format!("tcp {ip}:81 --wait 500"))
    })
}

pub(crate) fn source_ranges_let_in_whom_they_name(cluster: &Cluster) -> Result<()> {
    with(cluster, "source-ranges", || {
        let allowed = format!("tcp {}:80", balancer_address(cluster, "ranges-with")?);
        let denied = format!("tcp {}:80", balancer_address(cluster, "ranges-without")?);
        ask_often(cluster, OUTSIDE, &allowed, 20)?;
        OUTSIDE.must_not(cluster, &format!("{denied} --count 3 --wait 500"))?;
        // They are about the balancer's address: clients of the cluster use the cluster's.
        ask_often(cluster, INSIDE, &format!("tcp {}:80", address(cluster, "ranges-without")?), 10).map(drop)
    })
}

pub(crate) fn a_host_port_is_a_port_of_the_pods_node(cluster: &Cluster) -> Result<()> {
    with(cluster, "host-port", || {
        cluster.kubectl(&format!("wait -n {NAMESPACE} --for=condition=Ready pod/host-port --timeout=30s"))?;
        for asker in [OUTSIDE, INSIDE, HOST] {
            ask_often(cluster, asker, "tcp 10.89.0.12:18080", 10)?.only(&["host-port"])?;
            ask_often(cluster, asker, "udp 10.89.0.12:18080", 10)?.only(&["host-port"])?;
        }
        OUTSIDE.must_not(cluster, "tcp 10.89.0.11:18080 --wait 500")
    })
}

pub(crate) fn external_ips_count_for_nothing_unless_allowed(cluster: &Cluster) -> Result<()> {
    with(cluster, "external-ips", || {
        outside::route_to_node(cluster, "10.89.2.0/24", "10.89.0.11")?;
        reach(cluster, INSIDE, &format!("tcp {}:80", address(cluster, "external-ips")?))?;
        OUTSIDE.must_not(cluster, "tcp 10.89.2.1:80 --wait 500 --count 2")?;
        INSIDE.must_not(cluster, "tcp 10.89.2.1:80 --wait 500 --count 2")?;
        eventually(SOON, || {
            let said = cluster.ask_skep(&format!("service get {NAMESPACE}/external-ips"))?.ok()?;
            ensure!(said.contains("problem") && said.contains("10.89.2.1"), "nothing says so: {said}");
            Ok(())
        })?;
        unreachable(cluster, OUTSIDE, "tcp 10.89.2.1:80")
    })
}
