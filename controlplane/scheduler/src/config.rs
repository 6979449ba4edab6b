//! What the scheduler needs from its process.

use kube::Client;

/// Settings and handles for [`run`](crate::run).
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
