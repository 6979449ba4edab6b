//! Builds a [`PodView`] from the runtime's answers, termination messages included.

use std::{io::Read, path::Path};

use jiff::Timestamp;
use skep_wire::cri::v1;

use super::{Cri, CriError, labels};
use crate::{
    logs,
    pod::view::{ContainerView, PodView, RunState, SandboxView},
};

const MESSAGE_BYTES: u64 = 4096;
const MESSAGE_LOG_BYTES: usize = 2048;
const MESSAGE_LOG_LINES: usize = 80;

/// Everything the runtime has of the pod with that uid.
pub(crate) async fn inspect(cri: &Cri, uid: &str, known: &PodView) -> Result<PodView, CriError> {
    let mut view = PodView::default();
    for sandbox in cri.sandboxes(Some(uid)).await? {
        view.sandboxes.push(sandbox_view(cri, &sandbox, known).await?);
    }
    for container in cri.containers(Some(uid)).await? {
        if let Some(container) = container_view(cri, &container, known).await? {
            view.containers.push(container);
        }
    }
    Ok(view.sorted())
}

async fn sandbox_view(cri: &Cri, sandbox: &v1::PodSandbox, known: &PodView) -> Result<SandboxView, CriError> {
    let ready = sandbox.state() == v1::PodSandboxState::SandboxReady;
    if let Some(same) = known.sandboxes.iter().find(|s| s.id == sandbox.id && s.ready == ready) {
        return Ok(same.clone());
    }
    let status = match cri.sandbox_status(&sandbox.id).await {
        Ok(status) => status,
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    let network = status.and_then(|s| s.network).unwrap_or_default();
    let ips = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip));
    Ok(SandboxView {
        id: sandbox.id.clone(),
        attempt: sandbox.metadata.as_ref().map_or(0, |m| m.attempt),
        ready,
        created_at: sandbox.created_at,
        ips: ips.filter(|ip| !ip.is_empty()).collect(),
    })
}

async fn container_view(
    cri: &Cri,
    container: &v1::Container,
    known: &PodView,
) -> Result<Option<ContainerView>, CriError> {
    let state = run_state(container.state());
    if let Some(same) = known.containers.iter().find(|c| c.id == container.id && c.state == state) {
        return Ok(Some(same.clone()));
    }
    let status = match cri.container_status(&container.id).await {
        Ok(Some(status)) => status,
        Ok(None) => return Ok(None),
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(from_status(&container.pod_sandbox_id, status)))
}

fn from_status(sandbox: &str, status: v1::ContainerStatus) -> ContainerView {
    let state = run_state(status.state());
    let message = if state == RunState::Exited { termination_message(&status) } else { String::new() };
    let metadata = status.metadata.unwrap_or_default();
    ContainerView {
        id: status.id,
        name: metadata.name,
        sandbox: sandbox.to_owned(),
        attempt: metadata.attempt,
        state,
        created_at: status.created_at,
        started_at: time(status.started_at),
        finished_at: time(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason,
        message,
        image: status.image.map(|i| i.image).unwrap_or_default(),
        image_id: status.image_ref,
        hash: status.annotations.get(labels::HASH).cloned().unwrap_or_default(),
    }
}

fn time(nanoseconds: i64) -> Option<Timestamp> {
    if nanoseconds == 0 { None } else { Timestamp::from_nanosecond(nanoseconds.into()).ok() }
}

fn run_state(state: v1::ContainerState) -> RunState {
    match state {
        v1::ContainerState::ContainerCreated => RunState::Created,
        v1::ContainerState::ContainerRunning => RunState::Running,
        v1::ContainerState::ContainerExited => RunState::Exited,
        v1::ContainerState::ContainerUnknown => RunState::Unknown,
    }
}

/// The container's last words: its message file, or the end of its log, or what the runtime says.
fn termination_message(status: &v1::ContainerStatus) -> String {
    let file = status.annotations.get(labels::MESSAGE_FILE).map(|f| head(Path::new(f))).unwrap_or_default();
    let fall_back =
        status.annotations.get(labels::MESSAGE_POLICY).is_some_and(|p| p == "FallbackToLogsOnError");
    let mut message = file;
    if message.is_empty() && fall_back && status.exit_code != 0 && !status.log_path.is_empty() {
        message = logs::last_words(Path::new(&status.log_path), MESSAGE_LOG_LINES, MESSAGE_LOG_BYTES);
    }
    match (message.is_empty(), status.message.is_empty()) {
        (true, _) => status.message.clone(),
        (false, true) => message,
        (false, false) => format!("{}: {message}", status.message),
    }
}

fn head(file: &Path) -> String {
    let mut bytes = Vec::new();
    match std::fs::File::open(file) {
        Ok(open) => {
            if let Err(error) = open.take(MESSAGE_BYTES).read_to_end(&mut bytes) {
                tracing::debug!(file = %file.display(), %error, "cannot read the termination message");
            }
        }
        Err(error) => tracing::debug!(file = %file.display(), %error, "no termination message"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
