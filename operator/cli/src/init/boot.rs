//! From a host process to a node's pid 1: cgroups, the host-side listener, namespaces, then the child.
//!
//! The order matters: the cgroups before the cgroup namespace (whose root they become), the listener
//! before the network namespace (so that it stays on the host's loopback), the pid namespace last
//! (only children live in it).

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};

use super::node_file::{Machine, NodeFile};
use crate::lab::cgroup;

/// Makes the machine of a node file and starts its pid 1, which lives on. Prints its host pid.
pub(crate) fn boot(path: &Path) -> Result<i32> {
    let file = NodeFile::read(path)?;
    let Some(machine) = &file.machine else {
        bail!("{} describes no machine: run `skep init` with it instead", path.display());
    };
    nix::unistd::setsid().context("cannot leave the terminal's session")?;
    cgroup::enter(&machine.cgroup)?;
    let listener = listen(machine)?;
    enter_namespaces(machine)?;
    start(path, &file, machine, listener)
}

fn listen(machine: &Machine) -> Result<Option<OwnedFd>> {
    let Some(address) = machine.listen else { return Ok(None) };
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot listen on {address} for the API server: is the port taken?"))?;
    Ok(Some(listener.into()))
}

fn enter_namespaces(machine: &Machine) -> Result<()> {
    let netns = File::open(&machine.netns)
        .with_context(|| format!("no network namespace {}", machine.netns.display()))?;
    setns(&netns, CloneFlags::CLONE_NEWNET).context("cannot enter the node's network namespace")?;
    let own = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(own).context("cannot make the node's namespaces: skep up needs root")
}

fn start(path: &Path, file: &NodeFile, machine: &Machine, listener: Option<OwnedFd>) -> Result<i32> {
    let logs = machine.root.join(inside(&file.log_dir));
    std::fs::create_dir_all(&logs)?;
    let log = OpenOptions::new().create(true).append(true).open(logs.join("init.log"))?;
    let child = Command::new(std::env::current_exe()?)
        .arg("init")
        .arg(path)
        .stdin(listener.map_or_else(Stdio::null, Stdio::from))
        .stdout(log.try_clone()?)
        .stderr(log)
        .env_clear()
        .env("PATH", "/opt/skep/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .spawn()
        .context("cannot start the node's pid 1")?;
    Ok(child.id().try_into()?)
}

/// A node's absolute path as a relative one, to join to the node's root.
pub(crate) fn inside(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}
