//! What the scheduler needs from its process.

use kube::Client;
use skep_runtime::Drain;

/// Settings and handles for [`run`].
#[derive(Clone)]
pub struct SchedulerConfig {
    /// Client acting as `system:kube-scheduler`.
    pub client: Client,
    /// Pods with this `spec.schedulerName` are ours.
    pub name: String,
}

impl SchedulerConfig {
    /// The default scheduler over `client`.
    pub fn new(client: Client) -> Self {
        Self { client, name: "default-scheduler".to_owned() }
    }
}

/// Schedules pods until `drain` begins.
pub async fn run(config: SchedulerConfig, drain: Drain) {
    let _held = config;
    drain.cancelled().await;
}
