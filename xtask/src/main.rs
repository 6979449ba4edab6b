//! Every developer command: one door, the same for people and for the CI.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
mod ebpf;
mod image;
mod lab;
mod products;
mod say;
mod shell;
mod signals;
mod test;
mod tools;
mod verify;
mod vm;

/// Developer commands. Each installs what it lacks, says so, and can be repeated.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Xtask {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Builds everything and brings up a cluster with a demo on this machine (needs root).
    #[command(disable_help_flag = true)]
    Up {
        /// Handed on to `skep up`, such as --nodes 2 --store etcd.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Removes that cluster and all it left on this machine (needs root).
    #[command(disable_help_flag = true)]
    Down {
        /// Handed on to `skep down`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Says in one screen how the cluster is.
    #[command(disable_help_flag = true)]
    Status {
        /// Handed on to `skep status`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Runs the tests of one level, or of all.
    Test {
        /// The level; all by default.
        #[arg(value_enum)]
        level: Option<test::Level>,
        /// Tries a level that failed again, so many times, and says so.
        #[arg(long, default_value_t = 0)]
        retries: u8,
        /// A kernel of tests/kernels.toml for the level `vm`, again for more; all by default.
        #[arg(long = "kernel", value_name = "NAME")]
        kernels: Vec<String>,
        /// A suite of the level `vm`, again for more; all by default.
        #[arg(long = "suite", value_name = "NAME")]
        suites: Vec<String>,
    },
    /// Runs a benchmark and prints its table.
    Bench {
        /// Its name: net, programs, services, store, watch, footprint.
        name: String,
        /// Handed on to the benchmark.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Checks format, lints and layers; never writes.
    Verify,
    /// Formats, and applies what clippy can repair.
    Fix,
    /// Checks lints and layers.
    Lint,
    /// Builds the eBPF programs.
    Ebpf,
    /// Builds the images as OCI archives.
    Image {
        /// Only these; all by default. The binaries they hold must be built.
        names: Vec<String>,
    },
}

fn main() -> ExitCode {
    let verb = Xtask::parse().verb;
    match signals::watch().and_then(|()| run(verb)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Up { rest } if rest.iter().any(|word| word == "--help") => return lab::skep("up", &rest),
        Verb::Up { rest } => lab::up(&rest)?,
        Verb::Down { rest } => return lab::skep("down", &rest),
        Verb::Status { rest } => return lab::skep("status", &rest),
        Verb::Test { level, retries, kernels, suites } => {
            return test::test(level, retries, &vm::Choice { kernels, suites });
        }
        Verb::Bench { name, rest } => bench::bench(&name, &rest)?,
        Verb::Verify => verify::verify()?,
        Verb::Fix => verify::fix()?,
        Verb::Lint => verify::lint()?,
        Verb::Ebpf => ebpf::build()?,
        Verb::Image { names } if names.is_empty() => {
            products::build()?;
            image::build_all()?;
        }
        Verb::Image { names } => image::build_some(&names)?,
    }
    Ok(ExitCode::SUCCESS)
}
