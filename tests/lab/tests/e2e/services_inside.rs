//! Services for clients of the cluster: pods, pods elsewhere, and processes of the hosts.

use std::time::Duration;

use anyhow::{Result, ensure};
use skep_test_lab::asking::NAMESPACE;
use skep_test_lab::cluster::Cluster;
use skep_test_lab::command::eventually;

use crate::services::{
    ALL, HOST, INSIDE, OTHER, OUTSIDE, SOON, address, apply, ask_often, field, manifest, pod_address,
    prepare, reach, unreachable, with, with_text,
};

pub(crate) fn cluster_ip_balances_tcp_and_udp_for_pods_and_hosts(cluster: &Cluster) -> Result<()> {
    with(cluster, "cluster-ip", || {
        let ip = address(cluster, "cluster-ip")?;
        for asker in [INSIDE, OTHER, HOST] {
            ask_often(cluster, asker, &format!("tcp {ip}:80"), 40)?.only(&ALL)?;
            ask_often(cluster, asker, &format!("udp {ip}:80"), 40)?.only(&ALL)?;
            // An unconnected socket must see the answer come from the Service's address.
            asker.must(cluster, &format!("udp {ip}:80 --count 20 --unconnected --keep"))?;
            asker.must(cluster, &format!("tcp {ip}:80 --count 50 --keep"))?;
            asker.must(cluster, &format!("tcp {ip}:80 --bulk 300000 --count 3"))?;
        }
        INSIDE
            .must(cluster, &format!("tcp {ip}:80 --count 10"))?
            .seen_as(&pod_address(cluster, "inside")?)?;
        INSIDE.must(cluster, "tcp cluster-ip:80").map(drop)
    })
}

pub(crate) fn ports_of_a_service_lead_to_the_ports_they_name(cluster: &Cluster) -> Result<()> {
    with(cluster, "multi-port", || {
        let ip = address(cluster, "multi-port")?;
        for (server, port) in [("tcp {}:80", "8080"), ("tcp {}:9000", "8082"), ("udp {}:9000", "8081")] {
            let tally = ask_often(cluster, INSIDE, &server.replace("{}", &ip), 30)?;
            tally.only(&ALL)?;
            ensure!(tally.ports.len() == 1 && tally.ports.contains_key(port), "expected {port}: {tally:?}");
        }
        unreachable(cluster, INSIDE, &format!("tcp {ip}:81"))
    })
}

pub(crate) fn headless_names_lead_to_pods_and_to_no_frontend(cluster: &Cluster) -> Result<()> {
    with(cluster, "headless", || {
        let name = format!("headless.{NAMESPACE}.svc.cluster.local");
        let pods = ALL.map(|pod| pod_address(cluster, pod));
        eventually(SOON, || {
            let answer = in_pod(cluster, "inside", &format!("nslookup {name} 10.96.0.10"))?;
            for pod in &pods {
                let Ok(address) = pod else { continue };
                ensure!(answer.contains(address), "no {address}: {answer}");
            }
            Ok(())
        })?;
        INSIDE.must(cluster, &format!("tcp {name}:8080"))?;
        no_frontend(cluster, "headless")
    })
}

pub(crate) fn external_names_lead_to_names_and_to_no_frontend(cluster: &Cluster) -> Result<()> {
    with(cluster, "external-name", || {
        eventually(SOON, || {
            let name = format!("external-name.{NAMESPACE}.svc.cluster.local");
            let answer = in_pod(cluster, "inside", &format!("nslookup {name} 10.96.0.10"))?;
            ensure!(answer.contains("kubernetes.default.svc.cluster.local"), "{answer}");
            Ok(())
        })?;
        no_frontend(cluster, "external-name")
    })
}

fn in_pod(cluster: &Cluster, pod: &str, script: &str) -> Result<String> {
    cluster.kubectl_words(&["exec", "-n", NAMESPACE, pod, "--", "sh", "-c", script], b"")?.ok()
}

fn no_frontend(cluster: &Cluster, service: &str) -> Result<()> {
    let rows = cluster.ask_skep(&format!("bpf lb --service {NAMESPACE}/{service}"))?.ok()?;
    ensure!(!rows.contains(service), "{rows}");
    Ok(())
}

pub(crate) fn internal_local_is_served_on_the_backends_node_or_not_at_all(cluster: &Cluster) -> Result<()> {
    with(cluster, "internal-local", || {
        let server = format!("tcp {}:80", address(cluster, "internal-local")?);
        ask_often(cluster, INSIDE, &server, 20)?.only(&["one"])?;
        for asker in [OTHER, HOST] {
            asker.must_not(cluster, &format!("{server} --count 3 --wait 500"))?;
        }
        Ok(())
    })
}

pub(crate) fn affinity_keeps_a_client_with_its_backend_until_it_was_quiet(cluster: &Cluster) -> Result<()> {
    with(cluster, "affinity", || {
        let ip = address(cluster, "affinity")?;
        for asker in [INSIDE, HOST] {
            for server in [format!("tcp {ip}:80"), format!("udp {ip}:80")] {
                let tally = ask_often(cluster, asker, &server, 30)?;
                ensure!(tally.pods().len() == 1, "{server}: {tally:?}");
            }
        }
        let server = "tcp 10.89.0.13:30100";
        let tally = ask_often(cluster, OUTSIDE, server, 30)?;
        ensure!(tally.pods().len() == 1, "{server}: {tally:?}");
        let first = INSIDE.must(cluster, &format!("tcp {ip}:80"))?;
        // Quiet for longer than the timeout: sooner or later another backend is picked.
        for _ in 0..14 {
            std::thread::sleep(Duration::from_millis(2100));
            if INSIDE.must(cluster, &format!("tcp {ip}:80"))?.pods() != first.pods() {
                return Ok(());
            }
        }
        anyhow::bail!("a client that was quiet for two seconds stays with {:?}", first.pods())
    })
}

pub(crate) fn not_ready_addresses_are_served_only_when_published(cluster: &Cluster) -> Result<()> {
    with(cluster, "not-ready", || {
        ask_often(cluster, INSIDE, &format!("tcp {}:80", address(cluster, "not-ready")?), 5)?
            .only(&["unready"])?;
        INSIDE.must_not(cluster, &format!("tcp {}:80 --count 2 --wait 500", address(cluster, "when-ready")?))
    })
}

pub(crate) fn a_preferred_node_serves_its_own_clients(cluster: &Cluster) -> Result<()> {
    with(cluster, "same-node", || {
        let server = format!("tcp {}:80", address(cluster, "same-node")?);
        // Hints come with the slices: they may follow the first answer.
        let settle = |asker: skep_test_lab::asking::Asker, pod: &str| {
            eventually(SOON, || asker.must(cluster, &format!("{server} --count 20"))?.only(&[pod]))
        };
        settle(INSIDE, "one")?;
        settle(OTHER, "two")?;
        settle(HOST, "two")
    })
}

pub(crate) fn a_pod_reaches_itself_through_its_service(cluster: &Cluster) -> Result<()> {
    with(cluster, "hairpin", || {
        let ip = address(cluster, "hairpin")?;
        let one = skep_test_lab::asking::Asker::Pod("one");
        ask_often(cluster, one, &format!("tcp {ip}:80"), 20)?.only(&["one"])?;
        ask_often(cluster, one, &format!("udp {ip}:80"), 20)?.only(&["one"])?;
        ask_often(cluster, one, "tcp 10.89.0.12:30110", 10)?.only(&["one"])
    })
}

pub(crate) fn endpoints_written_by_hand_are_served(cluster: &Cluster) -> Result<()> {
    prepare(cluster)?;
    let text = manifest("selector-less")?.replace("ADDRESS", &pod_address(cluster, "two")?);
    with_text(cluster, &text, || {
        let ip = address(cluster, "selector-less")?;
        ask_often(cluster, INSIDE, &format!("tcp {ip}:80"), 10)?.only(&["two"])?;
        let changed = text.replace(&pod_address(cluster, "two")?, &pod_address(cluster, "three")?);
        apply(cluster, &changed)?;
        eventually(SOON, || INSIDE.must(cluster, &format!("tcp {ip}:80 --count 10"))?.only(&["three"]))
    })
}

pub(crate) fn another_services_address_is_no_endpoint(cluster: &Cluster) -> Result<()> {
    with(cluster, "foreign-vip", || {
        let ip = address(cluster, "foreign-vip")?;
        eventually(SOON, || {
            let said = cluster.ask_skep(&format!("service get {NAMESPACE}/foreign-vip"))?.ok()?;
            ensure!(
                said.contains("problem") && said.contains("10.96.0.1"),
                "the refusal is not shown: {said}"
            );
            Ok(())
        })?;
        for asker in [INSIDE, HOST] {
            asker.must_not(cluster, &format!("tcp {ip}:443 --count 2 --wait 500"))?;
        }
        Ok(())
    })
}

pub(crate) fn a_service_of_another_proxy_is_left_alone(cluster: &Cluster) -> Result<()> {
    with(cluster, "other-proxy", || {
        let server = format!("tcp {}:80", address(cluster, "other-proxy")?);
        INSIDE.must_not(cluster, &format!("{server} --count 2 --wait 500"))?;
        no_frontend(cluster, "other-proxy")?;
        // The label can only be given and taken with the Service itself.
        cluster.kubectl(&format!("delete service -n {NAMESPACE} other-proxy"))?;
        let ours = manifest("other-proxy")?.replace("service.kubernetes.io/service-proxy-name", "once");
        apply(cluster, &ours)?;
        reach(cluster, INSIDE, &format!("tcp {}:80", address(cluster, "other-proxy")?))
    })
}

pub(crate) fn a_backend_on_the_hosts_network_serves_everybody(cluster: &Cluster) -> Result<()> {
    with(cluster, "host-network", || {
        let ip = address(cluster, "host-network")?;
        cluster
            .kubectl(&format!("wait -n {NAMESPACE} --for=condition=Ready pod/host-network --timeout=30s"))?;
        for asker in [INSIDE, OTHER, HOST] {
            ask_often(cluster, asker, &format!("tcp {ip}:80"), 10)?.only(&["host-network"])?;
            ask_often(cluster, asker, &format!("udp {ip}:80"), 10)?.only(&["host-network"])?;
        }
        for node in ["10.89.0.12", "10.89.0.13"] {
            for protocol in ["tcp", "udp"] {
                let server = format!(
                    "{protocol} {node}:{}",
                    field(cluster, "host-network", ".spec.ports[0].nodePort")?
                );
                ask_often(cluster, OUTSIDE, &server, 10)?.only(&["host-network"])?;
            }
        }
        Ok(())
    })
}
