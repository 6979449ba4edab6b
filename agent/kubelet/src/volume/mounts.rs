//! Mounts below a pod's directory: tmpfs, and the safe removal of a directory that may hold mounts.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::VolumeError;

/// Mount points of this mount namespace at or below `directory`, the deepest first.
pub(crate) fn below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(parse(&fs::read_to_string("/proc/self/mountinfo")?, directory))
}

fn parse(mountinfo: &str, directory: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut found: Vec<_> = points.filter(|point| point.starts_with(directory)).collect();
    found.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    found
}

/// Undoes the octal escapes of mountinfo.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail
            .get(..3)
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u8::from_str_radix(d, 8).ok());
        match code.filter(|_| *first == b'\\') {
            Some(code) => {
                bytes.push(code);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    use std::os::unix::ffi::OsStringExt;
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// Whether something is mounted exactly there.
pub(crate) fn is_mounted(directory: &Path) -> io::Result<bool> {
    Ok(below(directory)?.iter().any(|point| point == directory))
}

/// Mounts a tmpfs on `directory` unless one is there.
pub(crate) fn tmpfs(directory: &Path, size: Option<i64>, mode: u32) -> Result<(), VolumeError> {
    fs::create_dir_all(directory).map_err(VolumeError::io(directory))?;
    if is_mounted(directory).map_err(VolumeError::io(directory))? {
        return Ok(());
    }
    let mut options = format!("mode={mode:o}");
    if let Some(size) = size.filter(|size| *size > 0) {
        options.push_str(&format!(",size={size}"));
    }
    mount(
        Some("tmpfs"),
        directory,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(options.as_str()),
    )
    .map_err(|errno| VolumeError::io(directory)(errno.into()))
}

/// Unmounts everything at or below `directory`, then removes it. Never follows a mount that stayed.
pub(crate) fn remove(directory: &Path) -> Result<(), VolumeError> {
    if !directory.exists() {
        return Ok(());
    }
    // Several mounts may be stacked on one point; a bound keeps a busy mount from looping for ever.
    for _ in 0..8 {
        let mounted = below(directory).map_err(VolumeError::io(directory))?;
        if mounted.is_empty() {
            break;
        }
        for point in mounted {
            if let Err(errno) = umount2(&point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
                tracing::debug!(point = %point.display(), %errno, "cannot unmount yet");
            }
        }
    }
    if let Some(point) = below(directory).map_err(VolumeError::io(directory))?.first() {
        let busy = io::Error::new(io::ErrorKind::ResourceBusy, "still mounted");
        return Err(VolumeError::io(point)(busy));
    }
    fs::remove_dir_all(directory).map_err(VolumeError::io(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_deepest_mounts_first_and_reads_escapes() {
        let text = "1 0 0:1 / /pods rw - tmpfs t rw\n\
                    2 1 0:2 / /pods/u/a\\040b rw - tmpfs t rw\n\
                    3 1 0:3 / /pods/u/a\\040b/c rw - tmpfs t rw\n\
                    4 1 0:4 / /podsx rw - tmpfs t rw\n";
        let found = parse(text, Path::new("/pods/u"));
        assert_eq!(found, [PathBuf::from("/pods/u/a b/c"), PathBuf::from("/pods/u/a b")]);
    }
}
