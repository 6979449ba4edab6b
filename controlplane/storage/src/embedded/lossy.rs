//! A disk for tests that keeps un-synced writes in memory and, when the power fails, loses any of them.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::Rng;
use redb::StorageBackend;

/// Writes are torn at this size.
const SECTOR: usize = 512;

/// A file on a disk that outlives the stores on it.
#[derive(Clone, Debug, Default)]
pub(super) struct LossyDisk {
    platter: Arc<Mutex<Platter>>,
    /// Operations left until the power fails.
    left: Arc<Mutex<Option<u64>>>,
}

#[derive(Debug, Default)]
struct Platter {
    /// What survives a power failure for certain.
    synced: Vec<u8>,
    /// What a reader sees.
    seen: Vec<u8>,
    /// Writes since the last sync.
    pending: Vec<Pending>,
}

#[derive(Debug)]
enum Pending {
    Length(usize),
    Write(usize, Vec<u8>),
}

impl LossyDisk {
    /// Fails the power after this many writes and syncs.
    pub(super) fn fail_after(&self, operations: u64) {
        *self.left.lock() = Some(operations);
    }

    /// Another file on the same disk: the power of both fails at once.
    pub(super) fn another(&self) -> Self {
        Self { platter: Arc::default(), left: Arc::clone(&self.left) }
    }

    /// Flips a bit.
    pub(super) fn flip(&self, at: usize, bit: u8) {
        self.platter.lock().seen[at] ^= 1 << bit;
    }

    /// Power is back. Each sector written since the last sync may or may not have reached the disk; lengths, like a
    /// journal, have reached it up to some point in time.
    pub(super) fn power_on(&self, random: &mut impl Rng) {
        let mut platter = self.platter.lock();
        let pending = std::mem::take(&mut platter.pending);
        let journaled = random.random_range(0..=pending.len());
        let kept = random.random_range(0.0..=1.0);
        for (at, change) in pending.into_iter().enumerate() {
            match change {
                Pending::Length(length) if at < journaled => platter.synced.resize(length, 0),
                Pending::Length(_) => {}
                Pending::Write(offset, data) => {
                    for (sector, bytes) in data.chunks(SECTOR).enumerate() {
                        if random.random_bool(kept) {
                            put(&mut platter.synced, offset + sector * SECTOR, bytes);
                        }
                    }
                }
            }
        }
        platter.seen = platter.synced.clone();
        *self.left.lock() = None;
    }

    fn spend(&self) -> io::Result<()> {
        match &mut *self.left.lock() {
            Some(0) => Err(io::Error::other("the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn put(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(bytes);
}

impl StorageBackend for LossyDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.platter.lock();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = platter.seen.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.spend()?;
        let mut platter = self.platter.lock();
        let length = usize::try_from(len).map_err(io::Error::other)?;
        platter.seen.resize(length, 0);
        platter.pending.push(Pending::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.spend()?;
        let mut platter = self.platter.lock();
        platter.synced = platter.seen.clone();
        platter.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.spend()?;
        let mut platter = self.platter.lock();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        put(&mut platter.seen, start, data);
        platter.pending.push(Pending::Write(start, data.to_vec()));
        Ok(())
    }
}
