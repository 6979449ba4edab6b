//! Takes a pod down: sandboxes stopped (and removed with their containers), volumes unmounted, cgroups and
//! logs gone. Every step may be repeated.

use std::{fs, io};

use super::{
    ops::{Context, Outcome},
    start,
};
use crate::{
    cgroup::CgroupError,
    cri::CriError,
    volume::{PodDir, VolumeError, mounts},
};

#[derive(Debug, thiserror::Error)]
enum TeardownError {
    #[error("{call}: {0}", call = .0.call)]
    Cri(#[from] CriError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("logs: {0}")]
    Logs(#[from] io::Error),
}

pub(super) async fn teardown(context: Context, remove: bool) -> Outcome {
    match run(&context, remove).await {
        Ok(()) => {
            tracing::info!(pod = %context.model.id, remove, "pod taken down");
            Outcome::TornDown(Ok(remove))
        }
        Err(error) => {
            tracing::warn!(pod = %context.model.id, %error, "pod not yet taken down");
            Outcome::TornDown(Err(()))
        }
    }
}

async fn run(context: &Context, remove: bool) -> Result<(), TeardownError> {
    let shared = &context.shared;
    let uid = &context.model.id.uid;
    // What the view shows may be older than what an aborted start left behind.
    let sandboxes = shared.cri.sandboxes(Some(uid)).await?;
    for sandbox in &sandboxes {
        shared.cri.stop_sandbox(&sandbox.id).await?;
    }
    if remove {
        for container in shared.cri.containers(Some(uid)).await? {
            shared.cri.remove_container(&container.id).await?;
        }
        for sandbox in &sandboxes {
            shared.cri.remove_sandbox(&sandbox.id).await?;
        }
    }
    shared.cgroups.remove_pod(uid).await?;
    let dir = PodDir::new(&shared.config.root_dir, uid);
    tokio::task::spawn_blocking(move || mounts::remove(dir.path()))
        .await
        .map_err(|error| TeardownError::Logs(io::Error::other(error)))??;
    if remove {
        remove_logs(context)?;
    }
    Ok(())
}

fn remove_logs(context: &Context) -> Result<(), TeardownError> {
    let directory = start::log_directory(context);
    match fs::remove_dir_all(&directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let links = context.shared.config.log_dir.join("containers");
    let id = &context.model.id;
    let prefix = format!("{}_{}_", id.name, id.namespace);
    for entry in fs::read_dir(&links).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(|n| n.starts_with(&prefix));
        if ours && fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(&directory)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
