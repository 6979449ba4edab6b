//! skep: brings a cluster up and down, says how it is, and is the first process of its lab nodes.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod agent;
mod bpf;
mod chart;
mod down;
mod init;
mod kubeconfig;
mod lab;
mod power;
mod service;
mod status;
mod terminal;
mod up;

/// An eBPF-native Kubernetes: cluster, network and node in one.
#[derive(Debug, Parser)]
#[command(name = "skep", version)]
struct Skep {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Brings up a cluster of several nodes on this machine, with a demo (needs root).
    Up(up::Up),
    /// Removes that cluster and everything it left on this machine (needs root).
    Down(down::Down),
    /// Says in one screen how a cluster is; fails when it is degraded.
    Status(status::Status),
    /// Shows Services as the nodes carry them out.
    #[command(subcommand)]
    Service(service::Service),
    /// Shows what the maps of the nodes hold.
    #[command(subcommand)]
    Bpf(bpf::Bpf),
    /// Switches a node of the local cluster off and on (needs root).
    #[command(subcommand)]
    Node(power::Power),
    /// Prints the chart as rendered, to look at or to apply.
    Template(chart::Template),
    /// Supervises a node's services; a lab node's pid 1.
    Init {
        /// The node file.
        file: PathBuf,
    },
    /// Makes a lab node's namespaces and starts its pid 1.
    #[command(hide = true)]
    Boot {
        /// The node file.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Skep::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", terminal::explain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Init { file } => init::run::init(&file)?,
        Command::Boot { file } => terminal::print(&init::boot::boot(&file)?.to_string()),
        Command::Node(power) => power::switch(&power)?,
        Command::Down(options) => down::down(&options)?,
        Command::Template(options) => chart::template(&options)?,
        Command::Up(options) => with_runtime(up::up(&options))?,
        Command::Service(question) => return with_runtime(service::service(&question)),
        Command::Bpf(question) => return with_runtime(bpf::bpf(&question)),
        Command::Status(options) => return with_runtime(status::status(&options)),
    }
    Ok(ExitCode::SUCCESS)
}

fn with_runtime<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    // One provider is linked; a second installation would only say so.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Skep::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        fn undescribed(command: &clap::Command) -> Vec<String> {
            let own = command.get_about().is_none().then(|| command.get_name().to_owned());
            let silent = |argument: &&clap::Arg| argument.get_help().is_none();
            let arguments =
                command.get_arguments().filter(silent).map(|argument| argument.get_id().to_string());
            let below = command.get_subcommands().flat_map(undescribed);
            own.into_iter().chain(arguments).chain(below).collect()
        }
        assert_eq!(undescribed(&Skep::command()), Vec::<String>::new());
    }

    #[test]
    fn questions_about_services_and_maps_are_understood() {
        for line in [
            "skep service list",
            "skep service get default/web --node node-1 -o json",
            "skep bpf lb --service web --frontend 10.96.0.1:443 --protocol tcp --limit 5",
            "skep bpf ct --node node-2",
            "skep bpf nat",
            "skep bpf maglev --service default/web",
            "skep bpf affinity -o json",
        ] {
            Skep::try_parse_from(line.split(' ')).unwrap();
        }
    }
}
