//! Network namespaces that vanish with their value, and commands in them.

use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use anyhow::{Context, anyhow, ensure};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Begins the name of everything that tests make; the number of the process follows.
const PREFIX: &str = "skt-";

static SWEPT: Once = Once::new();
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// What a device does for the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Checksums are complete when a packet leaves.
    TxChecksumOff,
    /// Packets are received in batches, which lets a veth's peer send before the stack.
    GroOn,
}

/// A named network namespace.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes one, loopback up, with a name that no other test has.
    ///
    /// # Errors
    /// Without root or iproute2.
    pub fn new(label: &str) -> anyhow::Result<Self> {
        SWEPT.call_once(remove_stale);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{serial}-{label}", std::process::id());
        sh(&format!("ip netns add {name}"))?;
        let netns = Self { name };
        netns.sh("ip link set lo up")?;
        Ok(netns)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs shell commands in it and returns what they print.
    ///
    /// # Errors
    /// When one fails.
    pub fn sh(&self, commands: &str) -> anyhow::Result<String> {
        run(self.command("sh").args(["-ec", commands]), commands)
    }

    /// A command that will run in it. The cgroup file systems stay visible.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg(program);
        command
    }

    /// Runs a function on a thread in it.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the function fails.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        let file = File::open(self.path())?;
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(&file, CloneFlags::CLONE_NEWNET)?;
                    work()
                })
                .join()
                .map_err(|_panic| anyhow!("the work in {} panicked", self.name))?
        })
    }

    /// Interface index of a device in it.
    ///
    /// # Errors
    /// When there is none.
    pub fn ifindex(&self, device: &str) -> anyhow::Result<u32> {
        let text = self.sh(&format!("ip -o link show dev {device}"))?;
        let number = text.split(':').next().context("no index")?;
        Ok(number.trim().parse()?)
    }

    /// Leaves checksums complete on a device, or lets its peer answer to programs before the stack, without `ethtool`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn offload(&self, device: &str, setting: Offload) -> anyhow::Result<()> {
        #[repr(C)]
        struct Request {
            name: [u8; 16],
            data: *mut [u32; 2],
            rest: [u8; 16],
        }
        let mut name = [0; 16];
        name[..device.len()].copy_from_slice(device.as_bytes());
        self.within(move || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            let mut value = match setting {
                Offload::TxChecksumOff => [0x17, 0],
                Offload::GroOn => [0x2c, 1],
            };
            let mut request = Request { name, data: &raw mut value, rest: [0; 16] };
            // SAFETY: the request and what it points to live during the call.
            let result = unsafe { libc::ioctl(socket.as_raw_fd(), 0x8946, &raw mut request) };
            ensure!(result == 0, "ethtool: {}", std::io::Error::last_os_error());
            Ok(())
        })
    }

    /// Link-layer address of a device in it.
    ///
    /// # Errors
    /// When there is none.
    pub fn mac(&self, device: &str) -> anyhow::Result<skep_model::MacAddr> {
        let text = self.sh(&format!("ip -o link show dev {device}"))?;
        let after = text.split("link/ether ").nth(1).context("no link-layer address")?;
        Ok(after.split(' ').next().unwrap_or_default().parse()?)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _best_effort = sh(&format!("ip netns del {}", self.name));
    }
}

/// Removes namespaces and cgroups of tests and benchmarks that were killed, and what still runs in them.
pub fn remove_stale() {
    for name in stale(Path::new("/run/netns")) {
        for pid in sh(&format!("ip netns pids {name}")).unwrap_or_default().lines() {
            // It may end meanwhile.
            let _ = pid.parse().map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
        }
        let _best_effort = sh(&format!("ip netns del {name}"));
    }
    for tree in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new) {
        for name in stale(tree) {
            let _best_effort = fs::remove_dir(tree.join(name));
        }
    }
}

/// Names in a folder that belong to tests whose process is gone.
fn stale(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| owner(name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())).collect()
}

/// The process in the name of what a test made.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Runs shell commands where we are.
///
/// # Errors
/// When one fails.
pub fn sh(commands: &str) -> anyhow::Result<String> {
    run(Command::new("sh").args(["-ec", commands]), commands)
}

fn run(command: &mut Command, shown: &str) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {shown}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{shown}: {}{printed}", String::from_utf8_lossy(&output.stderr));
    Ok(printed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_process_made_is_stale() {
        let folder = tempfile::tempdir().unwrap();
        let dead = {
            let mut child = Command::new("true").spawn().unwrap();
            child.wait().unwrap();
            child.id()
        };
        for name in
            [format!("skt-{dead}-0-n1"), format!("skt-{}-0-n1", std::process::id()), "skep-node-1".into()]
        {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        assert_eq!(stale(folder.path()), [format!("skt-{dead}-0-n1")]);
        assert_eq!((owner("skt-123-4-node1"), owner("skt-x")), (Some(123), None));
    }
}
