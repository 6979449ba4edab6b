//! The first process of a test machine: mounts, loads modules, runs the suites of its plan one after the other, and
//! switches the machine off.
//!
//! The plan is `/skep.plan`, one step a line: `module PATH`, or `suite NAME SECONDS PROGRAM ARGUMENT...`.

use std::{
    ffi::CString,
    fs,
    io::{self, Write},
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sys::{
        signal::{Signal, killpg},
        termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout},
};
use skep_test_vm::MARK;

const PORT: &str = "/dev/ttyS1";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/busybox";

fn main() {
    if let Err(error) = run() {
        say(&format!("failed {error:#}"));
    }
    say("done");
    // SAFETY: no pointers; nothing is mounted that could lose data.
    unsafe {
        libc::sync();
        libc::reboot(libc::LINUX_REBOOT_CMD_POWER_OFF);
    }
}

fn say(words: &str) {
    let mut out = io::stdout().lock();
    let _nobody_else_to_tell = writeln!(out, "{MARK}{words}").and_then(|()| out.flush());
}

fn run() -> Result<()> {
    mount_all()?;
    open_port()?;
    say("booted");
    Command::new("ip").args(["link", "set", "lo", "up"]).env("PATH", PATH).status().context("ip")?;
    for line in fs::read_to_string("/skep.plan").context("no plan")?.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["module", path] => {
                if let Err(error) = load_module(path) {
                    say(&format!("module {path} {error}"));
                }
            }
            ["suite", name, seconds, program, arguments @ ..] => {
                suite(name, Duration::from_secs(seconds.parse()?), program, arguments);
            }
            _ => say(&format!("failed no such step: {line}")),
        }
    }
    Ok(())
}

fn mount_all() -> Result<()> {
    for (kind, target) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
        ("bpf", "/sys/fs/bpf"),
        ("cgroup2", "/sys/fs/cgroup"),
    ] {
        fs::create_dir_all(target)?;
        mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {target}"))?;
    }
    // As on any machine that systemd has booted: namespaces are shared through mounts.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>)
        .context("cannot share the mounts")
}

/// The second serial port becomes this process's input and output, byte for byte.
fn open_port() -> Result<()> {
    let port = fs::OpenOptions::new().read(true).write(true).open(PORT).context(PORT)?;
    let mut settings = tcgetattr(&port)?;
    cfmakeraw(&mut settings);
    tcsetattr(&port, SetArg::TCSANOW, &settings)?;
    dup2_stdin(&port)?;
    dup2_stdout(&port)?;
    dup2_stderr(&port)?;
    Ok(())
}

fn load_module(path: &str) -> io::Result<()> {
    let file = fs::File::open(path)?;
    let options = CString::default();
    // SAFETY: an open file and an empty string that outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), options.as_ptr(), 0) };
    let error = io::Error::last_os_error();
    if result == 0 || error.raw_os_error() == Some(libc::EEXIST) { Ok(()) } else { Err(error) }
}

fn suite(name: &str, limit: Duration, program: &str, arguments: &[&str]) {
    say(&format!("suite {name}"));
    let start = Instant::now();
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH).env("HOME", "/tmp").env("RUST_BACKTRACE", "1");
    command.stdin(Stdio::null()).current_dir("/").process_group(0);
    let outcome = match command.spawn() {
        Ok(child) => wait(Pid::from_raw(child.id() as i32), limit),
        Err(error) => format!("cannot start: {error}"),
    };
    say(&format!("end {name} {:.1} {outcome}", start.elapsed().as_secs_f32()));
}

/// Waits for one child, takes what others leave behind, and ends the child's group at the limit.
fn wait(child: Pid, limit: Duration) -> String {
    let deadline = Instant::now() + limit;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => return format!("code {code}"),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => return format!("signal {signal}"),
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(20)),
            Ok(_) => {}
            Err(error) => return format!("cannot wait: {error}"),
        }
        if Instant::now() > deadline {
            let _gone_already = killpg(child, Signal::SIGKILL);
            return format!("hung for {} seconds", limit.as_secs());
        }
    }
}
