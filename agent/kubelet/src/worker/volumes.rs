//! Volume commands.

use std::time::Duration;

use super::ops::{Context, Outcome};
use crate::{
    events::Severity,
    volume::{
        PodDir,
        setup::{self, Sources},
    },
};

/// How often projected files are read again.
pub(crate) const REFRESH: Duration = Duration::from_secs(45);

pub(super) async fn prepare(context: Context) -> Outcome {
    let shared = &context.shared;
    let dir = PodDir::new(&shared.config.root_dir, &context.model.id.uid);
    let ips = pod_ips(&context);
    let sources = Sources { objects: &shared.objects, node: &shared.node_fields, pod_ips: &ips };
    match setup::prepare(&context.model, &dir, sources).await {
        Ok(()) => Outcome::Volumes(Ok(setup::needs_refresh(&context.model))),
        Err(error) => {
            tracing::warn!(pod = %context.model.id, %error, "volumes are not ready");
            shared.events.pod(&context.model.id, None, Severity::Warning, "FailedMount", error.to_string());
            Outcome::Volumes(Err(()))
        }
    }
}

pub(super) async fn refresh(context: Context) -> Outcome {
    let shared = &context.shared;
    let dir = PodDir::new(&shared.config.root_dir, &context.model.id.uid);
    let ips = pod_ips(&context);
    let sources = Sources { objects: &shared.objects, node: &shared.node_fields, pod_ips: &ips };
    if let Err(error) = setup::refresh(&context.model, &dir, sources).await {
        tracing::warn!(pod = %context.model.id, %error, "volumes keep their old content");
    }
    Outcome::Refreshed
}

/// The pod's addresses, as far as known.
pub(super) fn pod_ips(context: &Context) -> Vec<String> {
    if context.model.host_network() {
        return context.shared.node_ips.clone();
    }
    context.view.sandbox().map(|s| s.ips.clone()).unwrap_or_default()
}
