//! Processes of a lab node, found from the host by the node's cgroup.

use std::fs;

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Host pids of the processes in the machine's cgroups whose name is `name` (15 characters at most).
pub fn find(machine: &str, name: &str) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| is(*pid, machine, name)).collect()
}

fn is(pid: i32, machine: &str, name: &str) -> bool {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let wanted: String = name.chars().take(15).collect();
    let inside = |line: &str| line.split(['/', ':']).any(|part| part == machine);
    comm.trim_end() == wanted && cgroups.lines().any(inside)
}

/// Kills the process without a warning.
pub fn kill_9(machine: &str, name: &str) -> Result<()> {
    let found = find(machine, name);
    if found.is_empty() {
        bail!("no {name} runs on {machine}");
    }
    for pid in found {
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    }
    Ok(())
}
