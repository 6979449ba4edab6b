//! Mistakes about Services, and the words that name them.

use anyhow::{Result, ensure};
use skep_test_lab::asking::NAMESPACE;
use skep_test_lab::cluster::Cluster;

use crate::services::{prepare, with, with_text};

fn refused(cluster: &Cluster, text: &str, words: &[&str]) -> Result<()> {
    let said = cluster.with_manifest(&["apply", "-n", NAMESPACE], text)?.refused()?;
    for word in words {
        ensure!(said.contains(word), "no {word:?} in: {said}");
    }
    Ok(())
}

fn service(spec: &str) -> String {
    format!("{{apiVersion: v1, kind: Service, metadata: {{name: mistake}}, spec: {{{spec}}}}}")
}

fn slice(address: &str) -> String {
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: mistake}}, addressType: IPv4, \
         endpoints: [{{addresses: [{address}]}}]}}"
    )
}

pub(crate) fn ports_out_of_range_or_in_use_are_refused(cluster: &Cluster) -> Result<()> {
    prepare(cluster)?;
    let node_port = |port: u32| service(&format!("type: NodePort, ports: [{{port: 80, nodePort: {port}}}]"));
    refused(cluster, &service("ports: [{port: 70000}]"), &["spec.ports[0].port", "between 1 and 65535"])?;
    refused(cluster, &node_port(29999), &["29999", "30000-32767"])?;
    with(cluster, "node-port", || refused(cluster, &node_port(30080), &["30080", "already allocated"]))
}

pub(crate) fn addresses_that_are_nobodys_to_give_are_refused(cluster: &Cluster) -> Result<()> {
    prepare(cluster)?;
    let ports = "ports: [{port: 80}]";
    refused(cluster, &service(&format!("clusterIP: 192.0.2.1, {ports}")), &["192.0.2.1", "valid range"])?;
    refused(
        cluster,
        &service(&format!("clusterIP: 10.96.0.1, {ports}")),
        &["10.96.0.1", "already allocated"],
    )?;
    refused(cluster, &service(&format!("externalIPs: [127.0.0.1], {ports}")), &["externalIPs", "loopback"])?;
    refused(cluster, &slice("127.0.0.1"), &["endpoints[0].addresses", "loopback"])?;
    refused(cluster, &slice("169.254.169.254"), &["endpoints[0].addresses", "link-local"])?;
    let ranges = "type: LoadBalancer, loadBalancerSourceRanges: [10.0.0.1/99]";
    refused(cluster, &service(&format!("{ranges}, {ports}")), &["loadBalancerSourceRanges", "10.0.0.1/99"])
}

pub(crate) fn a_slice_that_names_a_node_is_not_served(cluster: &Cluster) -> Result<()> {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: mistake}\nspec: {ports: [{port: 10250}]}\n---\n\
        apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
        metadata: {name: mistake, labels: {kubernetes.io/service-name: mistake}}\naddressType: IPv4\n\
        ports: [{port: 10250}]\nendpoints: [{addresses: [10.89.0.11]}]\n";
    with_text(cluster, text, || {
        let ip = crate::services::address(cluster, "mistake")?;
        crate::services::INSIDE.must_not(cluster, &format!("tcp {ip}:10250 --count 2 --wait 500"))
    })
}

pub(crate) fn the_terminal_names_the_next_step(cluster: &Cluster) -> Result<()> {
    for (line, words) in [
        ("bpf lb --node node-9", vec!["node-9", "kubectl get nodes"]),
        ("bpf ct --protocol icmp", vec!["icmp", "tcp, udp or sctp"]),
        ("bpf lb --frontend web", vec!["web", "10.96.0.1:443"]),
        ("service get nobody/nothing", vec!["nobody/nothing", "kubectl get services"]),
        ("service list --kubeconfig /nowhere", vec!["/nowhere", "skep up"]),
    ] {
        let said = cluster.ask_skep(line)?.refused()?;
        for word in words {
            ensure!(said.contains(word), "skep {line}: no {word:?} in: {said}");
        }
    }
    Ok(())
}
