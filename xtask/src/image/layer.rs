//! A file system layer as a tar archive that depends on its contents only: no times, no owners.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tar::{EntryType, Header};

/// Something in the layer.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its path, without the leading slash.
    pub(crate) path: PathBuf,
    mode: u32,
    content: Content,
}

#[derive(Debug)]
enum Content {
    File(Vec<u8>),
    Link(PathBuf),
    Folder,
}

impl Entry {
    /// A file.
    pub(crate) fn file(path: PathBuf, bytes: Vec<u8>, mode: u32) -> Self {
        Self { path, mode, content: Content::File(bytes) }
    }

    /// A symbolic link.
    pub(crate) fn link(path: PathBuf, target: PathBuf) -> Self {
        Self { path, mode: 0o777, content: Content::Link(target) }
    }

    /// A folder.
    pub(crate) fn folder(path: &str, mode: u32) -> Self {
        Self { path: path.into(), mode, content: Content::Folder }
    }
}

/// The archive's bytes.
pub(crate) fn archive(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = header(entry.mode);
        match &entry.content {
            Content::File(bytes) => append(&mut archive, &mut header, &entry.path, bytes)?,
            Content::Link(target) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                archive.append_link(&mut header, &entry.path, target)?;
            }
            Content::Folder => {
                header.set_entry_type(EntryType::Directory);
                append(&mut archive, &mut header, &entry.path, &[])?;
            }
        }
    }
    Ok(archive.into_inner()?)
}

/// A header for a plain file of nobody's time.
pub(crate) fn header(mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_entry_type(EntryType::Regular);
    header
}

/// Appends bytes under a name.
pub(crate) fn append<W: std::io::Write>(
    archive: &mut tar::Builder<W>,
    header: &mut Header,
    path: &Path,
    bytes: &[u8],
) -> Result<()> {
    header.set_size(bytes.len().try_into()?);
    Ok(archive.append_data(header, path, bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_contents_make_the_same_bytes() {
        let entries =
            || [Entry::file("a/b".into(), vec![1, 2], 0o755), Entry::link("c".into(), "a/b".into())];
        assert_eq!(archive(&entries()).unwrap(), archive(&entries()).unwrap());
    }
}
