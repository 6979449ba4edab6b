//! The archive format of initial file systems: cpio, "newc".

use std::collections::BTreeSet;

const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const ALIGNMENT: usize = 4;

/// An archive in the making. Archives may be joined: the kernel unpacks one after the other.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    known: BTreeSet<String>,
    number: u32,
}

impl Archive {
    /// A file, and the folders above it; the first of a name counts.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        if self.above(path) {
            self.entry(path, REGULAR | mode, content);
        }
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        if self.above(path) {
            self.entry(path, LINK | 0o777, target.as_bytes());
        }
    }

    /// A folder.
    pub(crate) fn folder(&mut self, path: &str) {
        if self.above(path) {
            self.entry(path, FOLDER | 0o755, &[]);
        }
    }

    /// Whether something of this name is in it.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.known.contains(path.trim_start_matches('/'))
    }

    /// The finished bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    /// Makes the folders above, and says whether the name is new.
    fn above(&mut self, path: &str) -> bool {
        let path = path.trim_start_matches('/');
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
        self.known.insert(path.to_owned())
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        let path = path.trim_start_matches('/');
        self.number += 1;
        let fields =
            [self.number, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, path.len() as u32 + 1, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_first_and_once() {
        let mut archive = Archive::default();
        archive.file("/a/b/one", 0o755, b"1");
        archive.file("/a/b/two", 0o644, b"22");
        archive.file("/a/b/two", 0o644, b"again");
        assert!(archive.has("/a/b") && !archive.has("/a/c"));
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 5, "a, a/b, one, two and the trailer");
        assert_eq!(bytes.len() % 4, 0);
        assert!(!text.contains("again"));
    }

    #[test]
    fn a_header_has_its_fields_where_the_kernel_looks() {
        let mut archive = Archive::default();
        archive.link("sh", "dash");
        let bytes = archive.finish();
        let field = |number: usize| {
            let at = 6 + number * 8;
            u32::from_str_radix(std::str::from_utf8(&bytes[at..at + 8]).unwrap(), 16).unwrap()
        };
        assert_eq!((field(1), field(6), field(11)), (0o120_777, 4, 3));
        assert_eq!(&bytes[110..113], b"sh\0");
    }
}
