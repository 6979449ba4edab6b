//! A signal to this process reaches what it started: each group of processes gets it, and those that do not end are ended.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, exit};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::Pid;

/// Whether a signal is ending this process.
static STOPPING: AtomicBool = AtomicBool::new(false);
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// How long a test may take to tidy up after a signal.
const PATIENCE: Duration = Duration::from_secs(20);

/// A group of processes that must not outlive this one.
#[derive(Debug)]
pub(crate) struct Group(Pid);

impl Group {
    /// The group that a child leads.
    pub(crate) fn of(child: &Child) -> Self {
        let group = Pid::from_raw(child.id().cast_signed());
        groups(|all| all.push(group));
        Self(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The child ended because of the signal: what would be reported of it is not true.
        while STOPPING.load(Ordering::Acquire) {
            std::thread::park();
        }
        groups(|all| all.retain(|group| *group != self.0));
    }
}

fn groups<T>(work: impl FnOnce(&mut Vec<Pid>) -> T) -> T {
    work(&mut GROUPS.lock().unwrap_or_else(PoisonError::into_inner))
}

fn signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

/// Takes over the signals that end a program. Called before any thread is started.
pub(crate) fn watch() -> Result<()> {
    let signals = signals();
    signals.thread_block()?;
    std::thread::spawn(move || {
        if let Ok(signal) = signals.wait() {
            end_all(signal);
        }
    });
    Ok(())
}

fn end_all(signal: Signal) -> ! {
    STOPPING.store(true, Ordering::Release);
    let deadline = Instant::now() + PATIENCE;
    let alive = |group: &Pid| killpg(*group, None).is_ok();
    let started = groups(|all| all.clone());
    for group in &started {
        let _gone_already = killpg(*group, signal);
    }
    while started.iter().any(alive) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    for group in &started {
        let _gone_already = killpg(*group, Signal::SIGKILL);
    }
    eprintln!("ended by {signal}, and so is all that was started");
    exit(128 + signal as i32)
}

/// Starts a command that leads a group of its own.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    command.process_group(0);
    deliverable(|| command.spawn())
}

/// Runs something while this thread blocks no signal: a child inherits what its parent blocks, and hands it on to every
/// process it starts, none of which could be ended politely then. A signal that comes right now ends this process alone.
pub(crate) fn deliverable<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let signals = signals();
    signals.thread_unblock()?;
    let started = start();
    signals.thread_block()?;
    started
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_blocks_no_signal() {
        signals().thread_block().unwrap();
        let mut child = Command::new("grep");
        child.args(["SigBlk", "/proc/self/status"]).stdout(std::process::Stdio::piped());
        let output = spawn(&mut child).unwrap().wait_with_output().unwrap();
        signals().thread_unblock().unwrap();
        let mask = String::from_utf8(output.stdout).unwrap();
        assert_eq!(mask.trim(), "SigBlk:\t0000000000000000");
    }
}
