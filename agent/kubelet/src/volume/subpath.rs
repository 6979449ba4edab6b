//! Sub-paths of volumes: resolved beneath the volume by the kernel (openat2 RESOLVE_BENEATH), then bound by
//! file descriptor, so that a symlink planted by a container leads nowhere else.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::{Component, Path},
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, SFlag, fstat, mkdirat},
};

use super::VolumeError;

/// Binds `sub_path` of `volume` to `target`; a missing sub-path becomes a directory.
pub(crate) fn bind(volume: &Path, sub_path: &str, target: &Path) -> Result<(), VolumeError> {
    let relative = Path::new(sub_path);
    let plain = relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if relative.is_absolute() || !plain {
        return Err(VolumeError::BadPath(sub_path.to_owned()));
    }
    let source = open(volume, relative).map_err(VolumeError::io(&volume.join(relative)))?;
    let is_dir = is_dir(&source).map_err(VolumeError::io(target))?;
    make_target(target, is_dir).map_err(VolumeError::io(target))?;
    if super::mounts::is_mounted(target).map_err(VolumeError::io(target))? {
        if is_same(&source, target).map_err(VolumeError::io(target))? {
            return Ok(());
        }
        // The volume's files were replaced since the last run of the container.
        umount2(target, MntFlags::MNT_DETACH).map_err(|errno| VolumeError::io(target)(errno.into()))?;
    }
    let from = format!("/proc/self/fd/{}", source.as_raw_fd());
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from.as_str()), target, None::<&str>, flags, None::<&str>)
        .map_err(|errno| VolumeError::io(target)(errno.into()))
}

fn open(volume: &Path, relative: &Path) -> io::Result<OwnedFd> {
    let root = fs::File::open(volume)?;
    match beneath(&root, relative) {
        Err(nix::errno::Errno::ENOENT) => {
            create(&root, relative)?;
            Ok(beneath(&root, relative)?)
        }
        other => Ok(other?),
    }
}

fn beneath(root: &impl std::os::fd::AsFd, relative: &Path) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let path = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    openat2(root, path, OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(resolve))
}

/// Makes the missing directories one by one, each below a descriptor that was resolved safely.
fn create(root: &impl std::os::fd::AsFd, relative: &Path) -> io::Result<()> {
    let mode = fstat(root.as_fd())?.st_mode & 0o7777;
    let mut walked = std::path::PathBuf::new();
    for part in relative.components() {
        let parent = beneath(root, &walked)?;
        walked.push(part);
        match beneath(root, &walked) {
            Ok(_) => {}
            Err(nix::errno::Errno::ENOENT) => {
                mkdirat(&parent, part.as_os_str(), Mode::from_bits_truncate(0o750))?;
                // As open as the volume itself, whatever the umask: containers are to write there.
                let made = beneath(root, &walked)?;
                let path = format!("/proc/self/fd/{}", made.as_raw_fd());
                fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn is_dir(file: &OwnedFd) -> io::Result<bool> {
    let mode = SFlag::from_bits_truncate(fstat(file)?.st_mode);
    Ok(mode & SFlag::S_IFMT == SFlag::S_IFDIR)
}

/// Whether `target` already shows the file behind `source`.
fn is_same(source: &OwnedFd, target: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (wanted, shown) = (fstat(source)?, fs::metadata(target)?);
    Ok(wanted.st_dev == shown.dev() && wanted.st_ino == shown.ino())
}

fn make_target(target: &Path, is_dir: bool) -> io::Result<()> {
    if target.exists() {
        return Ok(());
    }
    if is_dir {
        return fs::create_dir_all(target);
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(target, [])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn never_resolves_out_of_the_volume() {
        let base = std::env::temp_dir().join(format!("skep-subpath-{:016x}", rand::random::<u64>()));
        fs::create_dir_all(base.join("v/in")).unwrap();
        symlink("/etc", base.join("v/abs")).unwrap();
        symlink("../..", base.join("v/up")).unwrap();
        symlink("in", base.join("v/fine")).unwrap();
        let volume = base.join("v");
        assert!(open(&volume, Path::new("in")).is_ok());
        assert!(open(&volume, Path::new("fine")).is_ok());
        assert!(open(&volume, Path::new("abs/passwd")).is_err());
        assert!(open(&volume, Path::new("up")).is_err());
        assert!(open(&volume, Path::new("new/deep")).is_ok());
        assert!(volume.join("new/deep").is_dir());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&volume.join("new/deep")), mode(&volume));
        assert!(bind(&volume, "../x", &base.join("t")).is_err());
        assert!(bind(&volume, "/etc", &base.join("t")).is_err());
        fs::remove_dir_all(base).unwrap();
    }
}
