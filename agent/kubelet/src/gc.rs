//! Garbage: dead containers beyond the last of each name, sandboxes without containers, images when the disk
//! fills, directories and cgroups of pods that are gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::Arc,
    time::Duration,
};

use nix::sys::statvfs::statvfs;
use skep_wire::cri::v1;

use crate::{
    cri::{CriError, labels},
    pods::Pods,
    shared::Shared,
    volume::{PodDir, mounts},
};

const EVERY: Duration = Duration::from_secs(60);
const HIGH_PERCENT: u64 = 85;
const LOW_PERCENT: u64 = 80;

/// Collects for ever.
pub(crate) async fn run(shared: Arc<Shared>, pods: Arc<Pods>) {
    loop {
        tokio::time::sleep(EVERY).await;
        if !pods.is_synced() {
            continue;
        }
        if let Err(error) = containers(&shared).await {
            tracing::warn!(call = error.call, %error, "dead containers stay");
        }
        if let Err(error) = images(&shared).await {
            tracing::warn!(call = error.call, %error, "unused images stay");
        }
        leftovers(&shared, &pods).await;
    }
}

async fn containers(shared: &Shared) -> Result<(), CriError> {
    let all = shared.cri.containers(None).await?;
    for container in surplus(&all) {
        let log = shared.cri.container_status(&container.id).await.ok().flatten().map(|s| s.log_path);
        shared.cri.remove_container(&container.id).await?;
        if let Some(log) = log.filter(|l| !l.is_empty())
            && let Err(error) = fs::remove_file(&log)
        {
            tracing::debug!(log, %error, "log stays");
        }
    }
    let used: BTreeSet<&str> = all.iter().map(|c| c.pod_sandbox_id.as_str()).collect();
    let sandboxes = shared.cri.sandboxes(None).await?;
    for sandbox in idle(&sandboxes, &used) {
        shared.cri.stop_sandbox(&sandbox.id).await?;
        shared.cri.remove_sandbox(&sandbox.id).await?;
    }
    Ok(())
}

/// Dead containers that are not the last dead one of their name.
fn surplus(all: &[v1::Container]) -> Vec<&v1::Container> {
    let mut dead: BTreeMap<(&str, &str), Vec<&v1::Container>> = BTreeMap::new();
    for container in all.iter().filter(|c| c.state() == v1::ContainerState::ContainerExited) {
        let label = |key: &str| container.labels.get(key).map_or("", String::as_str);
        dead.entry((label(labels::POD_UID), label(labels::CONTAINER_NAME))).or_default().push(container);
    }
    let surplus = dead.into_values().flat_map(|mut list| {
        list.sort_by_key(|c| std::cmp::Reverse(c.created_at));
        list.into_iter().skip(1)
    });
    surplus.collect()
}

/// Fallen sandboxes without containers that are not the newest of their pod.
fn idle<'a>(all: &'a [v1::PodSandbox], used: &BTreeSet<&str>) -> Vec<&'a v1::PodSandbox> {
    let uid = |s: &v1::PodSandbox| s.labels.get(labels::POD_UID).cloned().unwrap_or_default();
    let mut newest: BTreeMap<String, i64> = BTreeMap::new();
    for sandbox in all {
        let at = newest.entry(uid(sandbox)).or_default();
        *at = (*at).max(sandbox.created_at);
    }
    all.iter()
        .filter(|s| s.state() == v1::PodSandboxState::SandboxNotready && !used.contains(s.id.as_str()))
        .filter(|s| newest.get(&uid(s)).is_some_and(|at| s.created_at < *at))
        .collect()
}

async fn images(shared: &Shared) -> Result<(), CriError> {
    let Some((used, total)) = disk(shared) else { return Ok(()) };
    if used * 100 < total * HIGH_PERCENT {
        return Ok(());
    }
    let containers = shared.cri.containers(None).await?;
    let in_use: BTreeSet<&str> = containers
        .iter()
        .flat_map(|c| c.image.as_ref().map(|i| i.image.as_str()).into_iter().chain([c.image_ref.as_str()]))
        .collect();
    let mut to_free = used.saturating_sub(total * LOW_PERCENT / 100);
    let mut images = shared.cri.images().await?;
    images.sort_by_key(|i| std::cmp::Reverse(i.size));
    for image in images {
        let names = image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
        let is_pause = image.repo_tags.iter().any(|t| t.contains("pause"));
        if image.pinned || is_pause || names.into_iter().any(|n| in_use.contains(n.as_str())) {
            continue;
        }
        if to_free == 0 {
            break;
        }
        tracing::info!(image = image.id, "disk is filling up: image removed");
        shared.cri.remove_image(&image.id).await?;
        to_free = to_free.saturating_sub(image.size);
    }
    Ok(())
}

fn disk(shared: &Shared) -> Option<(u64, u64)> {
    let stat = statvfs(shared.config.root_dir.as_path()).ok()?;
    let total = stat.blocks() * stat.fragment_size();
    Some((total.saturating_sub(stat.blocks_available() * stat.fragment_size()), total))
}

/// Directories and cgroups of pods that nobody looks after any more.
async fn leftovers(shared: &Shared, pods: &Pods) {
    for uid in shared.cgroups.pods() {
        if !pods.has(&uid)
            && let Err(error) = shared.cgroups.remove_pod(&uid).await
        {
            tracing::debug!(uid, %error, "cgroup stays");
        }
    }
    let links = shared.config.log_dir.join("containers");
    for link in fs::read_dir(&links).into_iter().flatten().flatten() {
        // `exists` follows the link: what is left is a link to a log that is gone.
        if !link.path().exists()
            && let Err(error) = fs::remove_file(link.path())
        {
            tracing::debug!(link = %link.path().display(), %error, "log link stays");
        }
    }
    let root = shared.config.root_dir.join("pods");
    for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
        let Ok(uid) = entry.file_name().into_string() else { continue };
        if pods.has(&uid) {
            continue;
        }
        let dir = PodDir::new(&shared.config.root_dir, &uid);
        if let Err(error) = mounts::remove(dir.path()) {
            tracing::warn!(uid, %error, "directory of a pod that is gone stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_dead_container_of_each_name_stays() {
        let container = |id: &str, name: &str, state: v1::ContainerState, at: i64| v1::Container {
            id: id.to_owned(),
            state: state.into(),
            created_at: at,
            labels: [(labels::POD_UID, "u"), (labels::CONTAINER_NAME, name)]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            ..v1::Container::default()
        };
        let exited = v1::ContainerState::ContainerExited;
        let all = [
            container("1", "a", exited, 1),
            container("2", "a", exited, 2),
            container("3", "a", v1::ContainerState::ContainerRunning, 3),
            container("4", "b", exited, 1),
        ];
        assert_eq!(surplus(&all).iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["1"]);
    }
}
