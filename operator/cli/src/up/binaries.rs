//! The nodes' copies of the binaries: a rebuild must not pull the program away under a running node.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::preflight::BINARIES;

/// Which running services have a newer binary now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// skep-controlplane was replaced.
    pub(crate) control_plane: bool,
    /// skep-kubelet was replaced.
    pub(crate) kubelet: bool,
}

/// Copies what differs from `source` to `target`. The first installation changes nothing that runs.
pub(crate) fn install(source: &Path, target: &Path) -> Result<Changed> {
    fs::create_dir_all(target).with_context(|| format!("cannot make {}", target.display()))?;
    let mut changed = Changed::default();
    for name in BINARIES {
        let replaced = install_one(&source.join(name), &target.join(name))
            .with_context(|| format!("cannot install {name} in {}", target.display()))?;
        match name {
            "skep-controlplane" => changed.control_plane = replaced,
            "skep-kubelet" => changed.kubelet = replaced,
            _ => {}
        }
    }
    Ok(changed)
}

/// True when an older one was replaced. Size and time tell: they are kept by the copy.
fn install_one(source: &Path, target: &Path) -> Result<bool> {
    let new = fs::metadata(source)?;
    let old = fs::metadata(target).ok();
    if old.as_ref().is_some_and(|old| (old.len(), old.mtime()) == (new.len(), new.mtime())) {
        return Ok(false);
    }
    let fresh = target.with_extension("new");
    let _ = fs::remove_file(&fresh);
    fs::copy(source, &fresh)?;
    fs::File::options().write(true).open(&fresh)?.set_modified(new.modified()?)?;
    fs::rename(&fresh, target)?;
    Ok(old.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_all(folder: &Path, text: &str) {
        BINARIES.iter().for_each(|name| fs::write(folder.join(name), text).unwrap());
    }

    #[test]
    fn only_a_replaced_binary_counts_as_changed() {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write_all(source.path(), "one");
        assert_eq!(install(source.path(), target.path()).unwrap(), Changed::default());
        assert_eq!(install(source.path(), target.path()).unwrap(), Changed::default());
        fs::write(source.path().join("skep-kubelet"), "another").unwrap();
        let changed = install(source.path(), target.path()).unwrap();
        assert_eq!(changed, Changed { control_plane: false, kubelet: true });
        assert_eq!(fs::read(target.path().join("skep-kubelet")).unwrap(), b"another");
    }
}
