//! Reads a log file line by line, from its end if asked, and goes on in the new file after a rotation.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// An open log.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    inode: u64,
    pending: Vec<u8>,
}

const BLOCK: u64 = 64 * 1024;

impl Reader {
    /// Opens a log; with `tail`, at its last so many lines.
    pub(crate) fn open(path: &Path, tail: Option<usize>) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let inode = file.metadata()?.ino();
        let start = tail.map_or(Ok(0), |lines| tail_start(&mut file, lines))?;
        file.seek(SeekFrom::Start(start))?;
        Ok(Self { path: path.to_owned(), file: BufReader::new(file), inode, pending: Vec::new() })
    }

    /// The next whole line without its end; none while there is none.
    pub(crate) fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.file.read_until(b'\n', &mut self.pending)?;
        if self.pending.last() != Some(&b'\n') {
            return Ok(None);
        }
        self.pending.pop();
        Ok(Some(std::mem::take(&mut self.pending)))
    }

    /// Whether something was appended, or the log was rotated.
    pub(crate) fn has_more(&mut self) -> io::Result<bool> {
        if !self.file.fill_buf()?.is_empty() {
            return Ok(true);
        }
        Ok(std::fs::metadata(&self.path).is_ok_and(|m| m.ino() != self.inode))
    }

    /// Goes on in the new file if the log was rotated. Whether it was.
    pub(crate) fn follow_rotation(&mut self) -> io::Result<bool> {
        let now = match std::fs::metadata(&self.path) {
            Ok(metadata) => metadata.ino(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if now == self.inode {
            return Ok(false);
        }
        let file = File::open(&self.path)?;
        self.inode = file.metadata()?.ino();
        self.file = BufReader::new(file);
        self.pending.clear();
        Ok(true)
    }
}

/// Where the last `lines` lines begin.
fn tail_start(file: &mut File, lines: usize) -> io::Result<u64> {
    let end = file.metadata()?.len();
    if lines == 0 {
        return Ok(end);
    }
    let mut seen = 0usize;
    let mut at = end;
    while at > 0 {
        let size = BLOCK.min(at);
        at -= size;
        file.seek(SeekFrom::Start(at))?;
        let mut block = Vec::new();
        file.by_ref().take(size).read_to_end(&mut block)?;
        for (index, byte) in block.iter().enumerate().rev() {
            let position = at + index as u64;
            // The end of the last line does not begin another one.
            if *byte == b'\n' && position + 1 < end {
                seen += 1;
                if seen == lines {
                    return Ok(position + 1);
                }
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn scratch(content: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("skep-log-{:016x}", rand::random::<u64>()));
        std::fs::write(&path, content).unwrap();
        path
    }

    fn rest(reader: &mut Reader) -> Vec<String> {
        std::iter::from_fn(|| reader.next_line().unwrap()).map(|l| String::from_utf8(l).unwrap()).collect()
    }

    #[test]
    fn begins_at_the_last_lines() {
        let path = scratch("a\nb\nc\n");
        let tail = |n| rest(&mut Reader::open(&path, Some(n)).unwrap());
        assert_eq!(tail(2), ["b", "c"]);
        assert_eq!(tail(9), ["a", "b", "c"]);
        assert!(tail(0).is_empty());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn goes_on_with_what_is_appended_and_after_a_rotation() {
        let path = scratch("a\nhal");
        let mut reader = Reader::open(&path, None).unwrap();
        assert_eq!(rest(&mut reader), ["a"]);
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"f\n").unwrap();
        assert_eq!(rest(&mut reader), ["half"]);
        assert!(!reader.follow_rotation().unwrap());
        let old = path.with_extension("old");
        std::fs::rename(&path, &old).unwrap();
        std::fs::write(&path, "new\n").unwrap();
        assert!(reader.follow_rotation().unwrap());
        assert_eq!(rest(&mut reader), ["new"]);
        std::fs::remove_file(path).unwrap();
        std::fs::remove_file(old).unwrap();
    }
}
