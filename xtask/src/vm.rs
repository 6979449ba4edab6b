//! `test vm`: the tests of the programs inside virtual machines, one for each kernel of tests/kernels.toml.
//!
//! The kernels are Debian packages from the machine's own mirror; the initial file system is made of this machine's tools and of
//! the very test binaries that `test programs` runs. QEMU emulates (no KVM needed). At most two machines run at once.
//! Results lie in `target/vm/NAME.json`, all that the tests said in `NAME.log`, the kernel's own messages in `NAME.console`.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::shell::target;
use crate::test::tally::Tally;
use crate::tools::{self, Tool};
use crate::{ebpf, say};
use binaries::Binaries;
use kernels::Kernel;
use report::Report;

mod archive;
mod binaries;
mod debian;
mod facts;
mod initramfs;
mod kernels;
mod machine;
mod modules;
mod report;

/// Machines that run at once.
const AT_ONCE: usize = 2;
/// From switching a machine on to its end, with chosen suites and with all of them.
const LIMIT: Duration = Duration::from_secs(15 * 60);
const LIMIT_FOR_ALL: Duration = Duration::from_secs(40 * 60);

/// To fetch kernels and to run machines.
const TOOLS: [Tool; 8] = [
    Tool { program: "qemu-system-x86_64", package: "qemu-system-x86", purpose: "virtual machines" },
    Tool { program: "xz", package: "xz-utils", purpose: "unpacking kernel modules" },
    Tool { program: "busybox", package: "busybox-static", purpose: "the machines' small programs" },
    Tool { program: "dash", package: "dash", purpose: "the machines' shell" },
    Tool { program: "ip", package: "iproute2", purpose: "the machines' networks" },
    Tool { program: "sysctl", package: "procps", purpose: "the machines' networks" },
    Tool { program: "nsenter", package: "util-linux", purpose: "the machines' namespaces" },
    Tool { program: "ldd", package: "libc-bin", purpose: "finding libraries" },
];

/// Where everything of the machines lies.
fn folder() -> PathBuf {
    target().join("vm")
}

/// What is run; nothing named means all.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    /// Kernels of tests/kernels.toml.
    pub(crate) kernels: Vec<String>,
    /// Test binaries.
    pub(crate) suites: Vec<String>,
}

/// Runs the chosen kernels and reports each.
pub(crate) fn run(choice: &Choice) -> Result<Tally> {
    if std::env::consts::ARCH != "x86_64" {
        bail!(
            "the machines are x86_64 and run this machine's test binaries: {} cannot",
            std::env::consts::ARCH
        );
    }
    let kernels = kernels::select(&choice.kernels)?;
    tools::ensure(&tools::BUILD)?;
    tools::ensure(&TOOLS)?;
    ebpf::build()?;
    let binaries = binaries::build(&choice.suites)?;
    fs::create_dir_all(folder()).context("cannot make target/vm")?;
    let base = say::step("initial file system", || initramfs::base(&binaries))?;
    let reports = run_all(&kernels, &binaries, &base);
    if tools::is_root() {
        match facts::of_this_machine(&binaries) {
            Ok(facts) => facts::save(&folder().join("host.json"), &facts)?,
            Err(error) => say::line(&format!("the programs on this machine's own kernel: {error:#}")),
        }
    }
    Ok(report::conclude(&kernels, &reports, &folder().join("host.json")))
}

/// Each worker takes the next kernel that nobody has taken.
fn run_all(kernels: &[Kernel], binaries: &Binaries, base: &[u8]) -> Vec<Report> {
    let waiting = Mutex::new(kernels.iter());
    let done = Mutex::new(Vec::new());
    let lock = |error: PoisonError<_>| error.into_inner();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(kernels.len()) {
            scope.spawn(|| {
                loop {
                    let Some(kernel) = waiting.lock().unwrap_or_else(PoisonError::into_inner).next() else {
                        return;
                    };
                    let report = one(kernel, binaries, base);
                    done.lock().unwrap_or_else(lock).push(report);
                }
            });
        }
    });
    let mut reports = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    reports.sort_by_key(|report| kernels.iter().position(|kernel| kernel.name == report.kernel));
    reports
}

fn one(kernel: &Kernel, binaries: &Binaries, base: &[u8]) -> Report {
    let start = Instant::now();
    let mut report = Report::new(kernel);
    if let Err(error) = fetch_and_boot(kernel, binaries, base, &mut report) {
        report.trouble(format!("{error:#}"));
    }
    report.excuse();
    report.compare();
    report.seconds = start.elapsed().as_secs_f32();
    let file = |end: &str| folder().join(format!("{}.{end}", kernel.name));
    if let Err(error) = report.save(&file("json")).and_then(|()| report.save_log(&file("log"))) {
        report.trouble(format!("{error:#}"));
    }
    say::line(&report.summary());
    report
}

fn fetch_and_boot(kernel: &Kernel, binaries: &Binaries, base: &[u8], report: &mut Report) -> Result<()> {
    let unpacked = debian::fetch(kernel, &folder().join(&kernel.name))?;
    report.package.clone_from(&unpacked.version);
    let image = folder().join(&kernel.name).join("initramfs");
    initramfs::write(&image, base, &unpacked, binaries)?;
    let console = folder().join(format!("{}.console", kernel.name));
    let limit = if binaries.all_suites { LIMIT_FOR_ALL } else { LIMIT };
    let ended = machine::boot(&unpacked.image, &image, &console, limit, |line| report.line(line))?;
    if ended == machine::Ended::AtTheLimit {
        report.trouble(format!("not done after {} seconds", limit.as_secs()));
    } else if !report.done {
        report.trouble(format!("the machine died; its last messages are in {}", console.display()));
    }
    Ok(())
}
