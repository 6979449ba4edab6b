//! Services while things change: backends end and die, agents are killed, programs replaced, settings
//! turned. No connection may notice.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use skep_test_lab::asking::{Asker, NAMESPACE, Tally};
use skep_test_lab::cluster::Cluster;
use skep_test_lab::command::{eventually, run};
use skep_test_lab::{outside, process};

use crate::services::{
    ALL, HOST, INSIDE, NODES, OTHER, OUTSIDE, SOON, address, ask_often, reach, unreachable, with,
};

/// Asks all at once, disturbs them when they have begun, and collects the tallies.
fn meanwhile(
    cluster: &Cluster,
    questions: &[(Asker, String)],
    disturb: impl FnOnce() -> Result<()>,
) -> Result<Vec<Tally>> {
    thread::scope(|scope| {
        let ask = |(asker, line): &(Asker, String)| {
            let (asker, line) = (*asker, line.clone());
            scope.spawn(move || asker.ask(cluster, &line).context(line))
        };
        let asking: Vec<_> = questions.iter().map(ask).collect();
        // Long enough for every client to have its first answers.
        thread::sleep(Duration::from_millis(1500));
        let disturbed = disturb();
        let tallies = asking.into_iter().map(|one| one.join().map_err(|_| anyhow!("a client panicked"))?);
        let tallies: Result<Vec<Tally>> = tallies.collect();
        disturbed.and(tallies)
    })
}

/// Kept and new connections and sockets from everywhere.
fn all_kinds(cluster: &Cluster, seconds: u32) -> Result<Vec<(Asker, String)>> {
    let ip = address(cluster, "node-port")?;
    let inside = format!("{ip}:80 --seconds {seconds} --pause 25");
    let port = |node: &str, port: u16| format!("{node}:{port} --seconds {seconds} --pause 25");
    for (asker, server) in [(INSIDE, format!("tcp {ip}:80")), (OUTSIDE, "tcp 10.89.0.11:30080".into())] {
        reach(cluster, asker, &server)?;
    }
    Ok(vec![
        (INSIDE, format!("tcp {inside} --keep")),
        (OTHER, format!("tcp {inside}")),
        (INSIDE, format!("udp {inside} --keep")),
        (HOST, format!("tcp {inside}")),
        (OUTSIDE, format!("tcp {} --keep", port("10.89.0.11", 30080))),
        (OUTSIDE, format!("tcp {}", port("10.89.0.12", 30080))),
        (OUTSIDE, format!("udp {} --keep", port("10.89.0.13", 30081))),
    ])
}

fn all_complete(questions: &[(Asker, String)], tallies: &[Tally]) -> Result<()> {
    for ((asker, line), tally) in questions.iter().zip(tallies) {
        tally.complete().with_context(|| format!("{asker:?} asked {line}"))?;
        ensure!(tally.asked > 20, "{asker:?} hardly asked: {tally:?}");
    }
    Ok(())
}

fn agents_are_ready(cluster: &Cluster) -> Result<()> {
    eventually(Duration::from_secs(60), || {
        ensure!(cluster.ready_pods("k8s-app=skep-agent")?.len() == NODES.len());
        Ok(())
    })
}

pub(crate) fn a_terminating_backend_serves_to_its_end(cluster: &Cluster) -> Result<()> {
    with(cluster, "terminating", || {
        cluster.kubectl(&format!("wait -n {NAMESPACE} --for=condition=Ready pod/leaving --timeout=30s"))?;
        let ip = address(cluster, "terminating")?;
        reach(cluster, INSIDE, &format!("tcp {ip}:80"))?;
        reach(cluster, OTHER, &format!("tcp {ip}:80"))?;
        let questions = [
            (INSIDE, format!("tcp {ip}:80 --seconds 3.5 --pause 25 --keep")),
            (OTHER, format!("tcp {ip}:80 --seconds 3.5 --pause 25")),
        ];
        let tallies = meanwhile(cluster, &questions, || {
            cluster.kubectl(&format!("delete pod -n {NAMESPACE} leaving --wait=false")).map(drop)
        })?;
        all_complete(&questions, &tallies)?;
        unreachable(cluster, INSIDE, &format!("tcp {ip}:80"))
    })
}

pub(crate) fn udp_clients_move_on_at_once_when_a_backend_dies(cluster: &Cluster) -> Result<()> {
    with(cluster, "fragile", || {
        let ip = address(cluster, "fragile")?;
        for (asker, server) in [(INSIDE, format!("udp {ip}:80")), (OUTSIDE, "udp 10.89.0.11:30130".into())] {
            eventually(SOON, || {
                asker.must(cluster, &format!("{server} --count 30 --wait 500"))?.only(&["steady", "mortal"])
            })?;
        }
        let kept = "--seconds 4 --pause 20 --wait 300 --keep";
        let questions = [
            (INSIDE, format!("udp {ip}:80 {kept}")),
            (INSIDE, format!("udp {ip}:80 {kept} --unconnected")),
            (OTHER, format!("udp {ip}:80 {kept}")),
            (HOST, format!("udp {ip}:80 {kept}")),
            (OUTSIDE, format!("udp 10.89.0.11:30130 {kept}")),
            (OUTSIDE, format!("udp 10.89.0.12:30130 {kept}")),
        ];
        let tallies = meanwhile(cluster, &questions, || {
            cluster
                .kubectl(&format!("delete pod -n {NAMESPACE} mortal --grace-period=0 --force --wait=false"))
                .map(drop)
        })?;
        for ((asker, line), tally) in questions.iter().zip(&tallies) {
            let lost = tally.asked - tally.answered;
            ensure!(lost <= 2 && tally.answered > 20, "{asker:?} asked {line}, lost {lost}: {tally:?}");
        }
        INSIDE.must(cluster, &format!("udp {ip}:80 --count 20"))?.only(&["steady"])
    })
}

pub(crate) fn agents_killed_lose_no_connection(cluster: &Cluster) -> Result<()> {
    with(cluster, "node-port", || {
        let questions = all_kinds(cluster, 8)?;
        let tallies = meanwhile(cluster, &questions, || {
            NODES.iter().try_for_each(|(node, _)| process::kill_9(&cluster.machine(node), "skep-agent"))
        })?;
        all_complete(&questions, &tallies)?;
        agents_are_ready(cluster)
    })
}

/// The chart with these values for load balancing, applied as a user does.
fn turn_settings(cluster: &Cluster, values: &str) -> Result<()> {
    let path = cluster.dir().join("values.yaml");
    std::fs::write(&path, values)?;
    let path = path.to_string_lossy().into_owned();
    let limit = Duration::from_secs(10);
    let words = ["template", "--values", &path, "--api-server-host", NODES[0].1];
    let chart = run(&mut cluster.command(&words), b"", limit)?.ok();
    std::fs::remove_file(&path)?;
    cluster.with_manifest(&["apply"], &chart?)?.ok()?;
    cluster.kubectl("rollout status -n kube-system ds/skep-agent --timeout=90s")?;
    agents_are_ready(cluster)
}

pub(crate) fn programs_and_settings_replaced_lose_no_connection(cluster: &Cluster) -> Result<()> {
    with(cluster, "node-port", || {
        let questions = all_kinds(cluster, 25)?;
        let values = "loadBalancer:\n  externalIPs:\n    allowedRanges: [10.89.2.0/24]\n";
        let tallies = meanwhile(cluster, &questions, || turn_settings(cluster, values))?;
        all_complete(&questions, &tallies)
    })
}

pub(crate) fn direct_return_shows_backends_the_clients_address(cluster: &Cluster) -> Result<()> {
    with(cluster, "node-port", || {
        turn_settings(cluster, "loadBalancer:\n  mode: dsr\n")?;
        for (_, node) in NODES {
            for server in [format!("tcp {node}:30080"), format!("udp {node}:30081")] {
                let tally = ask_often(cluster, OUTSIDE, &server, 60)?;
                tally.only(&ALL)?;
                tally.seen_as(outside::ADDRESS)?;
            }
            OUTSIDE.must(cluster, &format!("tcp {node}:30080 --bulk 500000 --count 6"))?;
        }
        Ok(())
    })
}

/// Comes after the case that allows the range.
pub(crate) fn external_ips_in_an_allowed_range_are_served(cluster: &Cluster) -> Result<()> {
    with(cluster, "external-ips", || {
        outside::route_to_node(cluster, "10.89.2.0/24", "10.89.0.11")?;
        outside::route_to_node(cluster, "10.89.3.0/24", "10.89.0.11")?;
        ask_often(cluster, OUTSIDE, "tcp 10.89.2.1:80", 40)?.only(&ALL)?;
        ask_often(cluster, INSIDE, "tcp 10.89.2.1:80", 40)?.only(&ALL)?;
        OUTSIDE.must_not(cluster, "tcp 10.89.3.1:80 --wait 500 --count 2")
    })
}

pub(crate) fn xdp_takes_over_without_a_loss(cluster: &Cluster) -> Result<()> {
    with(cluster, "node-port", || {
        // The mode is turned back first: a node that differs from the others in it is no part of this.
        turn_settings(cluster, "{}\n")?;
        let values = "loadBalancer:\n  xdp: auto\n";
        let questions = all_kinds(cluster, 25)?;
        let tallies = meanwhile(cluster, &questions, || turn_settings(cluster, values))?;
        all_complete(&questions, &tallies)?;
        let screen = cluster.ask_skep("status")?.ok()?;
        ensure!(screen.contains("xdp native") || screen.contains("xdp generic"), "no XDP:\n{screen}");
        for (_, node) in NODES {
            ask_often(cluster, OUTSIDE, &format!("tcp {node}:30080"), 60)?.only(&ALL)?;
            ask_often(cluster, OUTSIDE, &format!("udp {node}:30081"), 60)?.only(&ALL)?;
            OUTSIDE.must(cluster, &format!("tcp {node}:30080 --bulk 500000 --count 6"))?;
        }
        Ok(())
    })
}
