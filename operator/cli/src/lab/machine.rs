//! A node of the lab as a machine: switched on, looked into, switched off, scrapped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

use super::plan::{INIT_STATUS, NodeNumber, Plan};
use super::state::{self, ProcessId};
use super::{cgroup, disk, network};
use crate::init::boot::inside;

/// How long the kernel may take to end a node's processes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A service of a node, as its pid 1 reports it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ServiceStatus {
    /// The service's name.
    pub(crate) name: String,
    /// running, waiting, pausing, stopping or stopped.
    pub(crate) phase: String,
    /// Its process id inside the node.
    #[serde(default)]
    pub(crate) pid: Option<i32>,
    /// How its last run ended.
    #[serde(default)]
    pub(crate) last_exit: Option<String>,
}

/// The node's pid 1, if the node is on.
pub(crate) fn init_of(plan: &Plan, node: NodeNumber) -> Option<ProcessId> {
    state::living_init(&plan.node_dir(node))
}

/// Switches a node on unless it is. True when it was off.
pub(crate) fn power_on(plan: &Plan, node: NodeNumber) -> Result<bool> {
    if init_of(plan, node).is_some() {
        return Ok(false);
    }
    power_off(plan, node)?;
    disk::prepare(plan, node)?;
    network::make_node(plan, node)?;
    cgroup::create(&plan.machine_name(node))?;
    let process = boot(plan, node)?;
    state::save_init(&plan.node_dir(node), process)?;
    Ok(true)
}

fn boot(plan: &Plan, node: NodeNumber) -> Result<ProcessId> {
    let output = Command::new(plan.bin_dir().join("skep"))
        .arg("boot")
        .arg(plan.node_dir(node).join("node.json"))
        .output()
        .context("cannot start the node")?;
    if !output.status.success() {
        bail!("{} does not start: {}", node.name(), String::from_utf8_lossy(&output.stderr).trim());
    }
    let pid = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    let log = plan.root(node).join("var/log/skep/init.log");
    ProcessId::of(pid).with_context(|| format!("{} ended at once: see {}", node.name(), log.display()))
}

/// Switches a node off as a power cut does: its processes, then its network. The disk stays.
pub(crate) fn power_off(plan: &Plan, node: NodeNumber) -> Result<()> {
    let name = plan.machine_name(node);
    cgroup::kill(&name)?;
    if let Some(init) = init_of(plan, node) {
        // Without cgroup.kill (before 5.14): the pid namespace ends with its first process.
        let _ = kill(Pid::from_raw(init.pid), Signal::SIGKILL);
        wait_for_end(init)?;
    }
    network::remove(&name)?;
    cgroup::remove(&name, PATIENCE)
}

fn wait_for_end(process: ProcessId) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while process.is_alive() {
        if Instant::now() > deadline {
            bail!("process {} does not end: is it stuck in the kernel?", process.pid);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A path of the running node, seen from the host.
pub(crate) fn look_into(init: ProcessId, path: &str) -> PathBuf {
    Path::new("/proc").join(init.pid.to_string()).join("root").join(inside(Path::new(path)))
}

/// What the node's pid 1 says of its services.
pub(crate) fn services(init: ProcessId) -> Vec<ServiceStatus> {
    let bytes = fs::read(look_into(init, INIT_STATUS)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Why a service of the node is not running, as far as its pid 1 knows.
pub(crate) fn trouble_with(plan: &Plan, node: NodeNumber, name: &str) -> Option<String> {
    let Some(init) = init_of(plan, node) else { return Some(format!("{} is off", node.name())) };
    let service =
        services(init).into_iter().find(|service| service.name == name && service.phase != "running")?;
    let exit = service.last_exit.map(|exit| format!(", last ended with {exit}")).unwrap_or_default();
    Some(format!("{name} is {}{exit}", service.phase))
}

/// Ends a service's process, so that it starts again from its new binary.
pub(crate) fn restart_service(init: ProcessId, name: &str) -> Result<()> {
    let Some(inner) =
        services(init).into_iter().find(|service| service.name == name).and_then(|found| found.pid)
    else {
        return Ok(());
    };
    let Some(pid) = host_pid(init, inner) else { return Ok(()) };
    kill(Pid::from_raw(pid), Signal::SIGTERM).with_context(|| format!("cannot restart {name}"))
}

/// The host's number of a process known by its number in the node.
pub(crate) fn host_pid(init: ProcessId, inner: i32) -> Option<i32> {
    let namespace = fs::read_link(format!("/proc/{}/ns/pid", init.pid)).ok()?;
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.into_iter().find(|pid| {
        fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|found| found == namespace)
            && inner_pid(*pid) == Some(inner)
    })
}

fn inner_pid(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}
