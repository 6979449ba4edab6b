//! A client outside of the cluster: a namespace beyond the router, on a network of its own. The nodes
//! have a route back to it, as they have to the world, and no other one.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::command::run;

/// The client's address.
pub const ADDRESS: &str = "10.89.1.2";
/// Its router's.
const GATEWAY: &str = "10.89.1.1";
/// The router on the nodes' network.
const ROUTER: &str = "10.89.0.1";
const LIMIT: Duration = Duration::from_secs(10);

/// Name of the namespace on this machine.
#[must_use]
pub fn namespace(cluster: &Cluster) -> String {
    cluster.machine("outside")
}

/// Makes it beside a running cluster, unless it is there.
pub fn ensure(cluster: &Cluster, nodes: &[&str]) -> Result<()> {
    let (own, router) = (namespace(cluster), cluster.router());
    if !exists(&own)? {
        for line in [
            format!("netns add {own}"),
            format!("-n {own} link set lo up"),
            format!("-n {own} link add eth0 type veth peer name outside netns {router}"),
            format!("-n {own} address add {ADDRESS}/24 dev eth0"),
            format!("-n {own} link set eth0 up"),
            format!("-n {router} address add {GATEWAY}/24 dev outside"),
            format!("-n {router} link set outside up"),
            format!("-n {own} route add default via {GATEWAY}"),
            format!("netns exec {router} sysctl -q -w net.ipv4.ip_forward=1"),
        ] {
            ip(&line)?;
        }
    }
    // A node that was switched off has a fresh namespace.
    for node in nodes {
        ip(&format!("-n {} route replace 10.89.1.0/24 via {ROUTER}", cluster.machine(node)))?;
    }
    Ok(())
}

/// Routes a range that no node owns to a node, as a provider does with external IPs.
pub fn route_to_node(cluster: &Cluster, range: &str, node: &str) -> Result<()> {
    ip(&format!("-n {} route replace {range} via {node}", cluster.router()))
}

/// Removes it; it may be missing.
pub fn remove(cluster: &Cluster) -> Result<()> {
    let own = namespace(cluster);
    if exists(&own)? { ip(&format!("netns delete {own}")) } else { Ok(()) }
}

/// A program that runs there, not started.
#[must_use]
pub fn command(cluster: &Cluster, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", namespace(cluster))).arg("--").arg(program);
    command
}

fn exists(name: &str) -> Result<bool> {
    Ok(std::path::Path::new("/run/netns").join(name).try_exists()?)
}

fn ip(line: &str) -> Result<()> {
    let said = run(Command::new("ip").args(line.split_whitespace()), b"", LIMIT)?;
    said.ok().map(drop).with_context(|| format!("ip {line}"))
}
