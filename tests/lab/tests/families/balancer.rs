//! Addresses for the world in every family that a cluster has, asked for by a neighbour of the nodes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use skep_test_lab::cluster::Cluster;
use skep_test_lab::command::{eventually, run};

/// A range for each family on the nodes' network; a cluster of one family uses its own only.
const MANIFEST: &str = "\
apiVersion: skep.dev/v1alpha1
kind: LoadBalancerIPPool
metadata: {name: families}
spec: {blocks: [{cidr: 10.89.0.240/29}, {cidr: 'fd00:89::f00/120'}]}
---
apiVersion: v1
kind: Service
metadata: {name: families}
spec:
  type: LoadBalancer
  loadBalancerClass: skep.dev/l2
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
";

/// Asks for a page from the router, whose bridge is the nodes' network.
fn ask(cluster: &Cluster, ip: IpAddr) -> Result<String> {
    let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
    let mut curl = Command::new("nsenter");
    curl.arg(format!("--net=/run/netns/{}", cluster.router()));
    curl.args(["--", "curl", "-sS", "-m", "3", &format!("http://{host}/")]);
    Ok(run(&mut curl, b"", Duration::from_secs(5))?.ok()?.trim().to_owned())
}

fn neighbours(cluster: &Cluster) -> Result<String> {
    run(Command::new("ip").args(["-n", &cluster.router(), "neighbour"]), b"", Duration::from_secs(5))?.ok()
}

pub(crate) fn announced_addresses_of_each_family_answer_their_neighbours(cluster: &Cluster) -> Result<()> {
    cluster.apply(MANIFEST)?;
    let addresses = eventually(Duration::from_secs(20), || {
        let service = cluster.json("get service families")?;
        let given = service["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
        let wanted = service["spec"]["ipFamilies"].as_array().map_or(0, Vec::len);
        ensure!(wanted > 0 && given.len() == wanted, "{}", service["status"]);
        given
            .iter()
            .map(|entry| Ok(entry["ip"].as_str().context("no address")?.parse()?))
            .collect::<Result<Vec<IpAddr>>>()
    })?;
    for ip in addresses {
        eventually(Duration::from_secs(20), || ask(cluster, ip)).with_context(|| format!("{ip}"))?;
        let answers = (0..30).map(|_| ask(cluster, ip)).collect::<Result<BTreeSet<String>>>();
        let answers =
            answers.with_context(|| format!("{ip}: {}", neighbours(cluster).unwrap_or_default()))?;
        ensure!(answers.len() > 1, "one pod answered 30 times at {ip}: {answers:?}");
    }
    cluster.with_manifest(&["delete"], MANIFEST)?.ok().map(drop)
}
