//! The driver of the supervisor: starts processes, reaps, listens to signals, writes the status file.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use super::node_file::{NodeFile, Service};
use super::root;
use super::supervisor::{Action, Supervisor};

/// A log file larger than this is moved aside when its service starts again.
const LOG_LIMIT: u64 = 16 << 20;
/// What containers get to end by themselves after the services have stopped.
const LAST_GRACE: Duration = Duration::from_millis(300);

/// Runs a node until SIGTERM.
pub(crate) fn init(path: &Path) -> Result<()> {
    let file = NodeFile::read(path)?;
    if let Some(machine) = &file.machine {
        root::enter(machine, &file.name)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(supervise(file))
}

struct Driver {
    supervisor: Supervisor,
    file: NodeFile,
    start: Instant,
}

async fn supervise(file: NodeFile) -> Result<()> {
    fs::create_dir_all(&file.log_dir)?;
    let mut child = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut driver = Driver { supervisor: Supervisor::new(&file.services), file, start: Instant::now() };
    report(&format!("{}: supervising {} services", driver.file.name, driver.file.services.len()));
    loop {
        driver.reap();
        if driver.act() {
            break;
        }
        driver.write_status();
        let now = driver.now();
        let pause =
            driver.supervisor.next_look(now).map_or(Duration::from_secs(60), |at| at.saturating_sub(now));
        tokio::select! {
            _ = child.recv() => {}
            _ = terminate.recv() => driver.supervisor.stop(),
            _ = interrupt.recv() => driver.supervisor.stop(),
            () = tokio::time::sleep(pause) => {}
        }
    }
    end_the_rest().await;
    Ok(())
}

impl Driver {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Carries out what is due; true when it is time to leave.
    fn act(&mut self) -> bool {
        loop {
            let now = self.now();
            let actions = self.supervisor.due(now, Path::exists);
            if actions.is_empty() {
                return false;
            }
            for action in actions {
                match action {
                    Action::Start(index) => self.start_service(index),
                    Action::Terminate(pid) => send(pid, Signal::SIGTERM),
                    Action::Kill(pid) => {
                        send(pid, Signal::SIGKILL);
                        return false;
                    }
                    Action::Leave => return true,
                }
            }
        }
    }

    fn start_service(&mut self, index: usize) {
        let now = self.now();
        let Some(unit) = self.supervisor.units().get(index) else { return };
        let service = unit.service.clone();
        match spawn(&service, &self.file.log_dir) {
            Ok(pid) => {
                report(&format!("{} started as {pid}", service.name));
                self.supervisor.started(index, pid, now);
            }
            Err(error) => {
                report(&format!("{} did not start: {error:#}", service.name));
                self.supervisor.failed(index, format!("{error:#}"), now);
            }
        }
    }

    fn reap(&mut self) {
        let now = self.now();
        loop {
            let (pid, how) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, format!("exit status {code}")),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, signal.to_string()),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            if let Some(name) = self.supervisor.ended(pid.as_raw(), &how, now) {
                report(&format!("{name} ended: {how}"));
            }
        }
    }

    fn write_status(&self) {
        let path = &self.file.status_file;
        if let Err(error) = write_status(path, &self.supervisor) {
            report(&format!("cannot write {}: {error:#}", path.display()));
        }
    }
}

fn write_status(path: &Path, supervisor: &Supervisor) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let fresh = path.with_extension("new");
    fs::write(&fresh, serde_json::to_vec_pretty(supervisor.units())?)?;
    Ok(fs::rename(&fresh, path)?)
}

fn spawn(service: &Service, log_dir: &Path) -> Result<i32> {
    let [program, arguments @ ..] = service.command.as_slice() else {
        anyhow::bail!("it has no command");
    };
    let log = open_log(log_dir, &service.name)?;
    let child = Command::new(program)
        .args(arguments)
        .envs(&service.env)
        .stdin(input(service)?)
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    Ok(child.id().try_into()?)
}

fn input(service: &Service) -> Result<Stdio> {
    if !service.listener {
        return Ok(Stdio::null());
    }
    let listener = std::io::stdin().as_fd().try_clone_to_owned().context("the listener was not passed on")?;
    Ok(listener.into())
}

fn open_log(folder: &Path, name: &str) -> Result<File> {
    let path: PathBuf = folder.join(format!("{name}.log"));
    if fs::metadata(&path).is_ok_and(|found| found.len() > LOG_LIMIT) {
        fs::rename(&path, folder.join(format!("{name}.log.1")))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))
}

fn send(pid: i32, signal: Signal) {
    if let Err(error) = kill(Pid::from_raw(pid), signal) {
        report(&format!("cannot send {signal} to {pid}: {error}"));
    }
}

/// As pid 1: everything still alive in the node is told to end, then made to.
async fn end_the_rest() {
    if std::process::id() != 1 {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        if kill(Pid::from_raw(-1), signal).is_err() {
            return;
        }
        tokio::time::sleep(LAST_GRACE).await;
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
        {
        }
    }
}

fn report(message: &str) {
    let time = k8s_openapi::jiff::Timestamp::now();
    eprintln!("{time:.3} {message}");
}
