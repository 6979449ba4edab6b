//! skep-cni: one call to the agent's socket for each CNI verb; no logic of its own.
//!
//! Speaks CNI 1.0 and 1.1 (and the 0.3/0.4 results that older runtimes ask for): the verb and the attachment come
//! from the environment, the network's configuration from stdin, the result or the error goes to stdout.
//! Installed under the name `loopback` it answers for the `lo` interface, which the agent brings up with the pod's.

#![allow(clippy::print_stdout, reason = "stdout is how a CNI plugin answers")]

mod call;
mod error;
mod request;
mod result;

use std::process::ExitCode;

use request::{Environment, Verb};

fn main() -> ExitCode {
    let mut version = result::NEWEST.to_owned();
    match run(&mut version) {
        Ok(Some(answer)) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{}", error.to_json(&version));
            ExitCode::FAILURE
        }
    }
}

/// Answers the call; `version` becomes the one that the caller speaks as soon as it is known.
fn run(version: &mut String) -> Result<Option<serde_json::Value>, error::CniError> {
    let environment = Environment::from_process();
    let verb = environment.verb()?;
    if verb == Verb::Version {
        return Ok(Some(result::versions()));
    }
    let network = request::Network::read(std::io::stdin().lock())?;
    version.clone_from(&network.cni_version);
    result::check_version(&network.cni_version)?;
    if network.plugin == "loopback" || environment.invoked_as("loopback") {
        return Ok((verb == Verb::Add).then(|| result::loopback(&network, &environment)));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| error::CniError::Io { what: "start", source })?;
    runtime.block_on(call::call(verb, &network, &environment))
}
