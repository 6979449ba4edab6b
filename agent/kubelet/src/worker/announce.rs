//! Events that follow from the status rather than from a command: back-offs, and waiting for the network.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};

use crate::{
    events::{Recorder, Severity},
    pod::model::PodModel,
};

/// What has been told, so that it is told once.
#[derive(Debug, Default)]
pub(super) struct Announced {
    waiting: BTreeMap<String, (String, i32)>,
    network: bool,
}

impl Announced {
    /// Tells what is new in `status`; `network` says why the pod waits for one.
    pub(super) fn tell(
        &mut self,
        events: &Recorder,
        model: &PodModel,
        status: &PodStatus,
        network: Option<String>,
    ) {
        if let Some(message) = network.as_ref().filter(|_| !self.network) {
            let message = format!("network is not ready: {message}");
            events.pod(&model.id, None, Severity::Warning, "NetworkNotReady", message);
        }
        self.network = network.is_some();
        for (name, reason) in self.news(status) {
            let container = Some(name.as_str());
            if reason == "CrashLoopBackOff" {
                let message = format!("Back-off restarting failed container {name} in pod {}", model.id);
                events.pod(&model.id, container, Severity::Warning, "BackOff", message);
            } else {
                let image = model.unit(&name).and_then(|u| u.container.image.clone()).unwrap_or_default();
                let message = format!("Back-off pulling image \"{image}\"");
                events.pod(&model.id, container, Severity::Normal, "BackOff", message);
                events.pod(&model.id, container, Severity::Warning, "Failed", format!("Error: {reason}"));
            }
        }
    }

    /// Containers that began to be held back, with the reason.
    fn news(&mut self, status: &PodStatus) -> Vec<(String, String)> {
        let all =
            status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
        let mut news = Vec::new();
        for container in all {
            let Some(reason) = held_back(container) else {
                self.waiting.remove(&container.name);
                continue;
            };
            let now = (reason.to_owned(), container.restart_count);
            if self.waiting.get(&container.name) != Some(&now) {
                news.push((container.name.clone(), reason.to_owned()));
                self.waiting.insert(container.name.clone(), now);
            }
        }
        news
    }
}

fn held_back(container: &ContainerStatus) -> Option<&str> {
    let reason = container.state.as_ref()?.waiting.as_ref()?.reason.as_deref()?;
    matches!(reason, "CrashLoopBackOff" | "ImagePullBackOff").then_some(reason)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_back_off_is_told_once_a_run() {
        let status = |count: i32, reason: &str| -> PodStatus {
            serde_json::from_value(json!({"containerStatuses": [{"name": "a", "image": "", "imageID": "",
                "ready": false, "restartCount": count, "state": {"waiting": {"reason": reason}}}]}))
            .unwrap()
        };
        let mut announced = Announced::default();
        assert_eq!(announced.news(&status(1, "CrashLoopBackOff")).len(), 1);
        assert!(announced.news(&status(1, "CrashLoopBackOff")).is_empty());
        assert_eq!(announced.news(&status(2, "CrashLoopBackOff")).len(), 1);
        assert!(announced.news(&status(2, "ContainerCreating")).is_empty());
    }
}
