//! The lab's network: a router namespace with a bridge, a namespace with `eth0` for each node, and no
//! default route anywhere, so that nothing of the lab can leave the machine.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};

use super::plan::{NodeNumber, Plan};
use super::process::run_line;

const NETNS_DIR: &str = "/run/netns";
const BRIDGE: &str = "br0";

fn path(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

/// Makes the router, if it is missing.
pub(crate) fn ensure_router(plan: &Plan) -> Result<()> {
    let router = plan.router();
    if path(&router).exists() && run_line(&format!("ip -n {router} link show {BRIDGE}")).is_ok() {
        return Ok(());
    }
    remove(&router)?;
    run_line(&format!("ip netns add {router}"))?;
    for step in [
        "link set lo up".to_owned(),
        format!("link add {BRIDGE} type bridge"),
        format!("link set {BRIDGE} up"),
    ] {
        run_line(&format!("ip -n {router} {step}"))?;
    }
    add_addresses(&router, BRIDGE, &plan.families.router())
}

/// Makes a node's namespace anew, as a machine that is switched on has a fresh one.
pub(crate) fn make_node(plan: &Plan, node: NodeNumber) -> Result<()> {
    let (netns, router, port) = (plan.machine_name(node), plan.router(), node.name());
    remove(&netns)?;
    // The other end of an earlier incarnation goes away with its namespace, but not at once.
    let _ = run_line(&format!("ip -n {router} link delete {port}"));
    run_line(&format!("ip netns add {netns}"))?;
    for step in [
        format!("-n {netns} link set lo up"),
        format!("-n {netns} link add eth0 type veth peer name {port} netns {router}"),
        format!("-n {router} link set {port} master {BRIDGE} up"),
        format!("-n {netns} link set eth0 up"),
    ] {
        run_line(&format!("ip {step}"))?;
    }
    add_addresses(&netns, "eth0", &plan.families.node(node))
}

/// Addresses that are there at once: nobody else in the lab can have them, so nothing is to be detected.
fn add_addresses(netns: &str, device: &str, addresses: &[(IpAddr, u8)]) -> Result<()> {
    for (ip, length) in addresses {
        let flags = if ip.is_ipv6() { " nodad" } else { "" };
        run_line(&format!("ip -n {netns} address add {ip}/{length} dev {device}{flags}"))?;
    }
    Ok(())
}

/// Removes a namespace; it may be missing.
pub(crate) fn remove(name: &str) -> Result<()> {
    if !path(name).exists() {
        return Ok(());
    }
    run_line(&format!("ip netns delete {name}")).map(drop)
}

/// Names of namespaces that start with `prefix`.
pub(crate) fn names(prefix: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(NETNS_DIR) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// `ip netns add` mounts its folder onto itself: takes that mount away when no namespace is left.
pub(crate) fn remove_empty_folder() -> Result<()> {
    let Ok(mut entries) = std::fs::read_dir(NETNS_DIR) else { return Ok(()) };
    if entries.next().is_some() {
        return Ok(());
    }
    while umount2(NETNS_DIR, MntFlags::MNT_DETACH).is_ok() {}
    std::fs::remove_dir(NETNS_DIR).with_context(|| format!("cannot remove {NETNS_DIR}"))
}
