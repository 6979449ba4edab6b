//! Asks the runtime every few seconds how it is; pods and the node's Ready condition depend on the answer.

use std::time::Duration;

use tokio::sync::watch;

use crate::{cri::Cri, shared::RuntimeState};

const EVERY: Duration = Duration::from_secs(3);

/// Asks for ever and publishes what changed.
pub(crate) async fn watch_state(cri: Cri, state: watch::Sender<RuntimeState>) {
    loop {
        let now = ask(&cri).await;
        state.send_if_modified(|known| {
            let changed = *known != now;
            if changed {
                tracing::info!(
                    runtime = now.runtime_ready,
                    network = now.network_ready,
                    now.message,
                    "runtime state"
                );
                *known = now;
            }
            changed
        });
        tokio::time::sleep(EVERY).await;
    }
}

async fn ask(cri: &Cri) -> RuntimeState {
    let conditions = match cri.status().await {
        Ok(answer) => answer.status.unwrap_or_default().conditions,
        Err(error) => {
            return RuntimeState { runtime_ready: false, network_ready: false, message: error.to_string() };
        }
    };
    let of = |kind: &str| conditions.iter().find(|c| c.r#type == kind);
    let holds = |kind: &str| of(kind).is_some_and(|c| c.status);
    let message = conditions
        .iter()
        .filter(|c| !c.status)
        .map(|c| format!("{}={} reason:{} message:{}", c.r#type, c.status, c.reason, c.message))
        .collect::<Vec<_>>()
        .join("; ");
    RuntimeState { runtime_ready: holds("RuntimeReady"), network_ready: holds("NetworkReady"), message }
}
