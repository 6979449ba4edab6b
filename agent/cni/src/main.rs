//! skep-cni: one call to the agent's socket for each CNI verb (CNI specification 1.1).
//!
//! Has no logic of its own: it parses what the runtime gives (`config`), asks the agent (`call`), and prints the answer
//! (`result`) or an error that runtimes understand (`failure`). Installed under the name `loopback` it is that plugin
//! too, which some runtimes demand (`loopback`).

mod call;
mod config;
mod failure;
mod loopback;
mod result;

use std::{
    io::{self, Read, Write},
    process::ExitCode,
};

use crate::{
    config::{Environment, NetConf, Plugin, Verb},
    failure::Failure,
};

fn main() -> ExitCode {
    let environment = Environment::of(|name| std::env::var(name).ok());
    let plugin = Plugin::of_program(std::env::args().next().as_deref());
    let mut text = Vec::new();
    if let Err(error) = io::stdin().lock().read_to_end(&mut text) {
        return finish(Err(Failure::Input(error)), result::NEWEST);
    }
    let conf = NetConf::parse(&text);
    let version = conf.as_ref().map_or(result::NEWEST, |conf| conf.version.as_str()).to_owned();
    finish(run(environment, conf, plugin), &version)
}

fn run(
    environment: Result<Environment, Failure>,
    conf: Result<NetConf, Failure>,
    plugin: Plugin,
) -> Result<Option<String>, Failure> {
    let environment = environment?;
    if environment.verb == Verb::Version {
        return Ok(Some(result::versions(conf.ok().as_ref())));
    }
    let conf = conf?;
    result::check_version(&conf.version)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Input)?;
    match plugin.or(conf.plugin) {
        Plugin::Loopback => runtime.block_on(loopback::run(&environment, &conf)),
        Plugin::Skep => runtime.block_on(call::run(&environment, &conf)),
    }
}

/// Prints what the runtime reads: a result, nothing, or an error object.
fn finish(outcome: Result<Option<String>, Failure>, version: &str) -> ExitCode {
    let (text, code) = match outcome {
        Ok(text) => (text.unwrap_or_default(), ExitCode::SUCCESS),
        Err(failure) => (failure.to_json(version), ExitCode::FAILURE),
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
