//! `test`: the levels, what each needs, and one count at the end.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::shell::{command, wait_at_most};
use crate::signals::{Group, spawn};
use crate::vm::{self, Choice};
use crate::{ebpf, image, products, say, tools};
use tally::Tally;

pub(crate) mod tally;

/// From the cheapest to the dearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Level {
    /// Behaviour without network, clock and root.
    Unit,
    /// The eBPF programs on this kernel, packet by packet (root).
    Programs,
    /// Nodes, processes and their recovery on this machine (root).
    Lab,
    /// What a kubectl user does, on a cluster of three nodes (root).
    E2e,
    /// Clusters of both families and of IPv6 alone (root).
    Families,
    /// The programs on other kernels, in virtual machines.
    Vm,
}

const ALL: [Level; 6] = [Level::Unit, Level::Programs, Level::Lab, Level::E2e, Level::Families, Level::Vm];

/// Runs a level, or all; fails when a test failed. A level that failed is tried again `retries` times, and says so.
/// `choice` is what the virtual machines run.
pub(crate) fn test(level: Option<Level>, retries: u8, choice: &Choice) -> Result<ExitCode> {
    let levels = level.map_or(ALL.to_vec(), |level| vec![level]);
    let mut results = Vec::new();
    for level in levels {
        let mut tally = level.attempt(choice);
        // Machines take minutes, and what a kernel does not load it will not load the next time.
        let retries = if level == Level::Vm { 0 } else { retries };
        for retry in 1..=retries {
            if tally.failed == 0 {
                break;
            }
            say::line(&format!("{}: {tally}; trying the level again ({retry} of {retries})", level.name()));
            tally = level.attempt(choice);
            if tally.failed == 0 {
                say::line(&format!(
                    "{}: UNSTABLE, failed at first and passed on try {}",
                    level.name(),
                    retry + 1
                ));
            }
        }
        results.push((level, tally));
    }
    let total = results.iter().fold(Tally::default(), |sum, (_, tally)| sum + *tally);
    for (level, tally) in &results {
        say::line(&format!("{:<9} {tally}", level.name()));
    }
    print_last_line(&total.to_string());
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The count goes to standard output: it is the command's result.
fn print_last_line(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{text}");
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Programs => "programs",
            Self::Lab => "lab",
            Self::E2e => "e2e",
            Self::Families => "families",
            Self::Vm => "vm",
        }
    }

    /// Why it cannot run here, if so.
    fn obstacle(self) -> Option<&'static str> {
        match self {
            Self::Unit | Self::Vm => None,
            _ if tools::is_root() => None,
            Self::Programs => Some("needs root: it loads eBPF programs"),
            Self::Lab | Self::E2e | Self::Families => {
                Some("needs root: it makes nodes of namespaces, mounts and cgroups")
            }
        }
    }

    /// Runs the level; what keeps it from running counts as a failure.
    fn attempt(self, choice: &Choice) -> Tally {
        say::line(&format!("== {}", self.name()));
        self.run(choice).unwrap_or_else(|error| {
            say::line(&format!("error: {error:#}"));
            Tally { failed: 1, ..Tally::default() }
        })
    }

    fn run(self, choice: &Choice) -> Result<Tally> {
        if let Some(obstacle) = self.obstacle() {
            say::line(&format!("skipped: {obstacle}"));
            return Ok(Tally { skipped: 1, ..Tally::default() });
        }
        if self == Self::Vm {
            return vm::run(choice);
        }
        self.prepare()?;
        let arguments = self.arguments();
        run_cargo(command("cargo", &arguments).env("SKEP_IMAGES_DIR", image::folder()), self.limit())
    }

    fn prepare(self) -> Result<()> {
        tools::ensure(&tools::BUILD)?;
        match self {
            // As root, some crates try themselves in namespaces of their own.
            Self::Unit => {
                tools::ensure(&[tools::ETCD])?;
                tools::ensure(&tools::NETWORK)
            }
            Self::Programs => {
                tools::ensure(&tools::NETWORK)?;
                ebpf::build()
            }
            Self::Lab | Self::E2e | Self::Families => {
                tools::ensure(&tools::CLUSTER)?;
                tools::ensure(&[tools::ETCD])?;
                products::build()?;
                image::build_all()
            }
            Self::Vm => Ok(()),
        }
    }

    fn arguments(self) -> Vec<&'static str> {
        let line = match self {
            Self::Unit => {
                "test --locked --no-fail-fast --workspace --lib --bins --tests --exclude skep-ebpf-programs \
                 --exclude skep-test-programs --exclude skep-test-lab"
            }
            Self::Programs => "test --locked --no-fail-fast --package skep-test-programs -- --test-threads=1",
            Self::Lab => "test --locked --package skep-test-lab --test lab",
            Self::E2e => "test --locked --package skep-test-lab --test e2e",
            Self::Families => "test --locked --package skep-test-lab --test families",
            Self::Vm => "",
        };
        line.split_whitespace().collect()
    }

    /// Includes compiling from scratch on two cores.
    fn limit(self) -> Duration {
        let minutes = match self {
            Self::Unit => 40,
            Self::Programs => 20,
            Self::Lab | Self::E2e | Self::Families | Self::Vm => 15,
        };
        Duration::from_secs(minutes * 60)
    }
}

/// Runs cargo's tests with their output shown, and counts.
fn run_cargo(command: &mut Command, limit: Duration) -> Result<Tally> {
    let mut child = spawn(command.stdout(Stdio::piped())).context("cannot run cargo")?;
    let _ends_with_us = Group::of(&child);
    let output = child.stdout.take().context("no output to read")?;
    let reader = std::thread::spawn(move || {
        let mut tally = Tally::default();
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            say::line(&line);
            tally = tally + Tally::of_line(&line);
        }
        tally
    });
    let status = wait_at_most(&mut child, limit)?;
    let mut tally = reader.join().unwrap_or_default();
    match status {
        None => {
            say::line(&format!("ended after {} minutes: a test hangs", limit.as_secs() / 60));
            tally.failed += 1;
        }
        // A test that does not compile, or a process that died, prints no result.
        Some(status) if !status.success() && tally.failed == 0 => tally.failed += 1,
        Some(_) => {}
    }
    Ok(tally)
}
