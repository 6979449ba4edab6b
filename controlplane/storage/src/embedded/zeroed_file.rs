//! A file whose fresh space is written with zeros ahead of its use.
//!
//! A sync after a write into space that the filesystem has not allocated yet also commits the filesystem's journal,
//! which costs several times the write. The store grows with nearly every transaction, so fresh space is filled with
//! zeros in larger steps: one sync in hundreds pays, the others write in place.

use std::fs::File;
use std::io;
use std::ops::{Bound, Range};
use std::os::unix::fs::FileExt;

use nix::unistd::{Whence, lseek};
use parking_lot::Mutex;
use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

/// Fresh space filled at once.
const STEP: u64 = 4 << 20;
/// Filling begins when a write comes this close to the end of the filled space.
const AHEAD: u64 = 256 << 10;
/// Zeros written by one call.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The store's file.
#[derive(Debug)]
pub(super) struct ZeroedFile {
    inner: FileBackend,
    file: File,
    space: Mutex<Space>,
}

/// Where the file's fresh space begins and the file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Space {
    /// Nothing at or behind this has ever been written.
    fresh: u64,
    length: u64,
}

impl Space {
    /// Takes note of a write; returns what to fill with zeros after it.
    fn write(&mut self, written: Range<u64>) -> Option<Range<u64>> {
        self.fresh = self.fresh.max(written.end);
        if written.end + AHEAD <= self.fresh || self.fresh >= self.length {
            return None;
        }
        let fill = self.fresh..self.length.min(self.fresh + STEP);
        self.fresh = fill.end;
        Some(fill)
    }

    fn resize(&mut self, length: u64) {
        self.length = length;
        self.fresh = self.fresh.min(length);
    }
}

impl ZeroedFile {
    /// Takes over a file that is open for reading and writing.
    pub(super) fn new(file: File) -> Result<Self, redb::Error> {
        // Whatever the filesystem has not placed yet must not look like a hole.
        file.sync_all()?;
        let length = file.metadata()?.len();
        let space = Space { fresh: last_hole(&file, length)?, length };
        let second = file.try_clone()?;
        Ok(Self { inner: FileBackend::new(file)?, file: second, space: Mutex::new(space) })
    }

    fn fill(&self, range: Range<u64>) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let left = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(ZEROS.len());
            self.file.write_all_at(&ZEROS[..left], at)?;
            at += left as u64;
        }
        Ok(())
    }
}

/// Where the hole at the end of the file begins; the file's length when it ends with data.
fn last_hole(file: &File, length: u64) -> io::Result<u64> {
    let mut hole = 0;
    loop {
        let seek = |from: u64, whence| lseek(file, i64::try_from(from).unwrap_or(i64::MAX), whence);
        match seek(hole, Whence::SeekData) {
            // There is data behind this hole: look for the next one.
            Ok(data) => {
                let next = seek(u64::try_from(data).unwrap_or(0), Whence::SeekHole)?;
                hole = u64::try_from(next).unwrap_or(length);
            }
            Err(nix::errno::Errno::ENXIO) => return Ok(hole.min(length)),
            // The filesystem cannot tell.
            Err(nix::errno::Errno::EINVAL) => return Ok(length),
            Err(error) => return Err(error.into()),
        }
    }
}

impl StorageBackend for ZeroedFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut space = self.space.lock();
        self.inner.set_len(len)?;
        space.resize(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // Held over the filling, so that no other write lands in what is being filled.
        let mut space = self.space.lock();
        self.inner.write(offset, data)?;
        match space.write(offset..offset + data.len() as u64) {
            Some(fill) => self.fill(fill),
            None => Ok(()),
        }
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: u64 = 64 << 10;

    proptest! {
        // Each case writes tens of megabytes.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn filling_never_touches_what_was_written(
            steps in prop::collection::vec((0u64..300, 1u64..8, any::<u8>(), prop::bool::weighted(0.1)), 1..40),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("file");
            let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
            let mut file = ZeroedFile::new(open()).unwrap();
            let mut model = vec![0u8; (308 * BLOCK) as usize];
            file.set_len(model.len() as u64).unwrap();
            for (block, blocks, byte, reopen) in steps {
                if reopen {
                    file.close().unwrap();
                    drop(file);
                    file = ZeroedFile::new(open()).unwrap();
                }
                let data = vec![byte; (blocks * BLOCK) as usize];
                file.write(block * BLOCK, &data).unwrap();
                model[(block * BLOCK) as usize..][..data.len()].copy_from_slice(&data);
            }
            let mut seen = vec![1; model.len()];
            file.read(0, &mut seen).unwrap();
            prop_assert!(seen == model);
        }
    }

    #[test]
    fn writes_in_place_fill_nothing_and_those_at_the_end_fill_a_step() {
        let mut space = Space { fresh: 0, length: 100 << 20 };
        assert_eq!(space.write(0..4096), Some(4096..4096 + STEP));
        assert_eq!(space.write(8192..12288), None);
        let near = space.fresh - AHEAD + 1;
        assert_eq!(space.write(0..near), Some(space_range(4096 + STEP)));
        space.resize(1 << 20);
        assert_eq!(space, Space { fresh: 1 << 20, length: 1 << 20 });
        assert_eq!(space.write(0..1 << 20), None, "there is nothing to fill");
    }

    fn space_range(start: u64) -> Range<u64> {
        start..start + STEP
    }

    #[test]
    fn the_hole_at_the_end_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(directory.path().join("file"))
            .unwrap();
        file.write_all_at(&[1; 4096], 1 << 20).unwrap();
        file.set_len(64 << 20).unwrap();
        file.sync_all().unwrap();
        let hole = last_hole(&file, 64 << 20).unwrap();
        assert!(hole >= (1 << 20) + 4096, "what was written is not in it");
    }
}
