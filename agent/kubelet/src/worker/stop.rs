//! Stops one container: preStop hook, the polite signal, and the final one when the grace period is over.

use std::time::{Duration, Instant};

use super::{
    ops::{Context, Outcome},
    start,
};
use crate::{events::Severity, pod::plan::StopReason};

/// What to stop.
#[derive(Debug, Clone)]
pub(super) struct Order {
    /// The container.
    pub(super) name: String,
    /// The runtime's id.
    pub(super) id: String,
    /// Seconds until the final signal.
    pub(super) grace: i64,
    /// Why.
    pub(super) reason: StopReason,
}

pub(super) async fn stop(context: Context, order: Order) -> Outcome {
    let message = match &order.reason {
        StopReason::PodEnds => format!("Stopping container {}", order.name),
        StopReason::Probe(kind) => format!("Container {} failed {kind} probe, will be restarted", order.name),
        StopReason::Changed => format!("Container {} definition changed, will be restarted", order.name),
        StopReason::SandboxLost => {
            format!("Pod sandbox changed, container {} will be killed and re-created", order.name)
        }
        StopReason::Unknown => format!("Container {} is in unknown state, will be restarted", order.name),
    };
    context.shared.events.pod(&context.model.id, Some(&order.name), Severity::Normal, "Killing", message);
    let begun = Instant::now();
    pre_stop(&context, &order).await;
    let used = i64::try_from(begun.elapsed().as_secs()).unwrap_or(i64::MAX);
    // A hook that used the time up still leaves the process a moment to end.
    let left = order.grace.saturating_sub(used).max(order.grace.min(2));
    if let Err(error) = context.shared.cri.stop_container(&order.id, left).await {
        tracing::warn!(pod = %context.model.id, container = order.name, %error, "container not stopped");
        let message = format!("error killing container: {error}");
        context.shared.events.pod(
            &context.model.id,
            Some(&order.name),
            Severity::Warning,
            "FailedKillPod",
            message,
        );
        // The plan stops it again; a runtime that fails at once must not be asked in a tight loop.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Outcome::Stopped
}

async fn pre_stop(context: &Context, order: &Order) {
    let unit = context.model.unit(&order.name);
    let Some((unit, hook)) = unit.and_then(|u| Some((u, u.container.lifecycle.as_ref()?.pre_stop.as_ref()?)))
    else {
        return;
    };
    let target = start::target(context, unit, &order.id);
    let timeout = Duration::from_secs(u64::try_from(order.grace).unwrap_or(0));
    if let Err(why) = start::handle(&context.shared.cri, &target, hook, timeout).await {
        let message = format!("PreStopHook failed: {why}");
        context.shared.events.pod(
            &context.model.id,
            Some(&order.name),
            Severity::Warning,
            "FailedPreStopHook",
            message,
        );
    }
}
