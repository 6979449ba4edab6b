//! A signal to this process reaches what it started: each group of processes gets it, and those that do not end are ended.

use std::os::unix::process::CommandExt;
use std::process::{Child, exit};
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

/// Takes over the signals that end a program. Called before any thread is started.
pub(crate) fn watch() -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
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

/// Makes a command lead a group.
pub(crate) fn own_group(command: &mut std::process::Command) -> &mut std::process::Command {
    command.process_group(0)
}
