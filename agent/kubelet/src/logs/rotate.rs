//! Rotates container logs: at 10 MiB a log is put aside, and the runtime is asked to open a new one.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;

use crate::cri::Cri;

const MOST_BYTES: u64 = 10 * 1024 * 1024;
const MOST_FILES: usize = 5;
const EVERY: Duration = Duration::from_secs(10);

/// Rotates for ever.
pub(crate) async fn run(cri: Cri) {
    loop {
        tokio::time::sleep(EVERY).await;
        let containers = match cri.containers(None).await {
            Ok(containers) => containers,
            Err(_) => continue,
        };
        for container in containers {
            let running = container.state() == skep_wire::cri::v1::ContainerState::ContainerRunning;
            if running && let Err(error) = one(&cri, &container.id).await {
                tracing::warn!(container = container.id, %error, "log not rotated");
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum RotateError {
    #[error(transparent)]
    Cri(#[from] crate::cri::CriError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

async fn one(cri: &Cri, id: &str) -> Result<(), RotateError> {
    let Some(status) = cri.container_status(id).await? else { return Ok(()) };
    let path = PathBuf::from(status.log_path);
    if path.as_os_str().is_empty() || !fs::metadata(&path).is_ok_and(|m| m.len() > MOST_BYTES) {
        return Ok(());
    }
    let aside = PathBuf::from(format!("{}.{}", path.display(), Timestamp::now().strftime("%Y%m%d-%H%M%S")));
    fs::rename(&path, &aside)?;
    if let Err(error) = cri.reopen_log(id).await {
        // The runtime still writes to the old file: give it its name back.
        fs::rename(&aside, &path)?;
        return Err(error.into());
    }
    prune(&path)?;
    Ok(())
}

/// Removes the oldest rotated files of a log.
fn prune(path: &Path) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return Ok(());
    };
    let prefix = format!("{name}.");
    let mut old: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|n| n.starts_with(&prefix)) {
            old.push(entry.path());
        }
    }
    old.sort();
    let surplus = old.len().saturating_sub(MOST_FILES - 1);
    old.into_iter().take(surplus).try_for_each(fs::remove_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_files() {
        let dir = std::env::temp_dir().join(format!("skep-rotate-{:016x}", rand::random::<u64>()));
        fs::create_dir(&dir).unwrap();
        let log = dir.join("0.log");
        for n in 0..7 {
            fs::write(dir.join(format!("0.log.2026010{n}-000000")), "").unwrap();
        }
        fs::write(&log, "").unwrap();
        prune(&log).unwrap();
        let mut left: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left.len(), 5);
        assert_eq!(left[1], "0.log.20260103-000000");
        fs::remove_dir_all(dir).unwrap();
    }
}
