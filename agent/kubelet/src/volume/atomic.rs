//! Replaces all files of a directory at once: readers see the old set or the new one, never a mixture.
//!
//! Files live in a fresh hidden directory; `..data` is a symlink to it, swapped by rename; the names users see
//! are symlinks through `..data`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Component, Path, PathBuf},
};

use jiff::Timestamp;

use super::VolumeError;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// One file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// Its bytes.
    pub(crate) content: Vec<u8>,
    /// Its permission bits.
    pub(crate) mode: u32,
}

/// Files by relative path.
pub(crate) type Payload = BTreeMap<String, File>;

/// Makes `directory` hold exactly `payload`, owned by `group` if given. Whether anything changed.
pub(crate) fn write(directory: &Path, payload: &Payload, group: Option<u32>) -> Result<bool, VolumeError> {
    for path in payload.keys() {
        check(path)?;
    }
    let data = directory.join(DATA);
    let old = fs::read_link(&data).ok();
    if let Some(old) = &old
        && holds(&directory.join(old), payload)
    {
        return Ok(false);
    }
    let name = fresh_name();
    let fresh = directory.join(&name);
    fill(&fresh, payload, group).map_err(VolumeError::io(&fresh))?;
    swap(directory, &name).map_err(VolumeError::io(&data))?;
    publish(directory, payload).map_err(VolumeError::io(directory))?;
    if let Some(old) = old.filter(|old| old.as_os_str() != name.as_str()) {
        let stale = directory.join(old);
        fs::remove_dir_all(&stale).map_err(VolumeError::io(&stale))?;
    }
    Ok(true)
}

fn fresh_name() -> String {
    format!("..{}.{:08x}", Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S"), rand::random::<u32>())
}

fn check(path: &str) -> Result<(), VolumeError> {
    let plain = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if path.is_empty() || !plain || path.starts_with("..") {
        return Err(VolumeError::BadPath(path.to_owned()));
    }
    Ok(())
}

fn holds(directory: &Path, payload: &Payload) -> bool {
    let mut found = BTreeSet::new();
    if list(directory, Path::new(""), &mut found).is_err() {
        return false;
    }
    found.len() == payload.len()
        && payload.iter().all(|(path, file)| {
            found.contains(Path::new(path))
                && fs::read(directory.join(path)).is_ok_and(|content| content == file.content)
        })
}

fn list(root: &Path, below: &Path, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(root, &path, found)?;
        } else {
            found.insert(path);
        }
    }
    Ok(())
}

fn fill(directory: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    make_dir(directory, group)?;
    for (path, file) in payload {
        let target = directory.join(path);
        if let Some(parent) = Path::new(path).parent() {
            let mut at = directory.to_owned();
            for part in parent.components() {
                at.push(part);
                make_dir(&at, group)?;
            }
        }
        fs::write(&target, &file.content)?;
        let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
        fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
        if group.is_some() {
            chown(&target, None, group)?;
        }
    }
    Ok(())
}

fn make_dir(directory: &Path, group: Option<u32>) -> io::Result<()> {
    match fs::create_dir(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    let mode = if group.is_some() { 0o2775 } else { 0o755 };
    if group.is_some() {
        chown(directory, None, group)?;
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(mode))
}

fn swap(directory: &Path, name: &str) -> io::Result<()> {
    let new = directory.join(DATA_NEW);
    match fs::remove_file(&new) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    symlink(name, &new)?;
    fs::rename(&new, directory.join(DATA))
}

/// Makes the user-visible names: one symlink for each first path component; removes the others.
fn publish(directory: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with("..") && !wanted.contains(name) && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    for name in wanted {
        let link = directory.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), link)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |content: &str| File { content: content.as_bytes().to_vec(), mode: 0o640 };
        files.iter().map(|(path, content)| ((*path).to_owned(), file(content))).collect()
    }

    fn scratch() -> PathBuf {
        let path = std::env::temp_dir().join(format!("skep-atomic-{:016x}", rand::random::<u64>()));
        fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn shows_exactly_the_new_files_after_an_update() {
        let dir = scratch();
        assert!(write(&dir, &payload(&[("a", "1"), ("d/b", "2")]), None).unwrap());
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(dir.join("d/b")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(write(&dir, &payload(&[("a", "3"), ("c", "4")]), None).unwrap());
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "3");
        assert!(!dir.join("d").exists());
        let hidden = fs::read_dir(&dir).unwrap().filter(|e| {
            let name = e.as_ref().unwrap().file_name();
            name.to_str().unwrap().starts_with("..")
        });
        assert_eq!(hidden.count(), 2, "one data directory and the link to it");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_same_content_is_not_written_again() {
        let dir = scratch();
        let files = payload(&[("a", "1")]);
        assert!(write(&dir, &files, None).unwrap());
        let link = fs::read_link(dir.join(DATA)).unwrap();
        assert!(!write(&dir, &files, None).unwrap());
        assert_eq!(fs::read_link(dir.join(DATA)).unwrap(), link);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn refuses_names_that_leave_the_volume() {
        let dir = scratch();
        for name in ["../x", "/etc/passwd", "a/../../x", "", "..data"] {
            assert!(write(&dir, &payload(&[(name, "")]), None).is_err(), "{name}");
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
