//! Running other programs: with their output shown or kept, and with an end in any case.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::signals::{Group, spawn};

/// The checkout.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Cargo's folder for what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Variables that cargo sets for this process about this process.
const ABOUT_ME: [&str; 10] = [
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_BIN_",
    "CARGO_CRATE_",
    "CARGO_PRIMARY_",
    "CARGO_CFG_",
    "CARGO_FEATURE_",
    "RUSTC",
    "OUT_DIR",
    "PROFILE",
];

/// A program run in the checkout. What cargo told this process about itself is not handed on: it
/// would confuse a cargo started from here.
pub(crate) fn command<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[S]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root()).env_remove("CARGO");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| ABOUT_ME.iter().any(|mine| name.starts_with(mine))) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs with the output shown; an error says which command it was.
pub(crate) fn show(command: &mut Command) -> Result<()> {
    let mut child = spawn(command).with_context(|| format!("cannot run {}", describe(command)))?;
    let _ends_with_us = Group::of(&child);
    let status = child.wait()?;
    if !status.success() {
        bail!("{} ended with {status}", describe(command));
    }
    Ok(())
}

/// Runs with the output kept; it is part of the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = spawn(command).with_context(|| format!("cannot run {}", describe(command)))?;
    let _ends_with_us = Group::of(&child);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = words.lines().rev().take(30).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("{} ended with {}:\n{}", describe(command), output.status, tail.join("\n"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits for a child that leads a process group of its own; ends the whole group at the deadline.
pub(crate) fn wait_at_most(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            end_group(child)?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Ends a child and its group: first politely, so that a test can take its cluster down.
pub(crate) fn end_group(child: &mut Child) -> Result<()> {
    let group = Pid::from_raw(child.id().try_into()?);
    let _ = killpg(group, Signal::SIGTERM);
    let deadline = Instant::now() + Duration::from_secs(10);
    while child.try_wait()?.is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = killpg(group, Signal::SIGKILL);
    child.wait()?;
    Ok(())
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
