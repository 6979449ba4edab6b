//! skep-demo: a server whose answers say which pod answered which client, and a client that counts
//! what was lost. Both run in the demo images and, in tests, outside of the cluster.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod ask;
mod fetch;
mod serve;
mod tally;

/// Server and client for looking at Services.
#[derive(Debug, Parser)]
#[command(name = "skep-demo", version)]
struct Demo {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answers with the names of pod and node, the port, and the client's address.
    Serve(serve::Serve),
    /// Asks a server and prints a tally in JSON; fails when a question stayed without an answer.
    Ask(ask::Ask),
    /// Fetches http://ADDRESS:PORT/PATH and prints the answer, its status first.
    Fetch {
        /// Where from.
        url: String,
    },
}

fn main() -> ExitCode {
    match run(Demo::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Serve(options) => serve::serve(&options).map(|()| ExitCode::SUCCESS),
        Command::Fetch { url } => {
            writeln!(std::io::stdout(), "{}", fetch::fetch(&url)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Ask(options) => {
            let tally = ask::ask(&options)?;
            writeln!(std::io::stdout(), "{}", serde_json::to_string(&tally)?)?;
            Ok(if tally.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}
