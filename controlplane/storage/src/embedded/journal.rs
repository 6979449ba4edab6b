//! The journal: groups of transactions, appended in front of the database and made durable by one sync each.
//!
//! A commit of the database rewrites pages all over its file; a record here is one write behind the last one. So a group
//! is durable once its record is, the database takes it in memory, and only when the journal is full does a commit of
//! the database itself, a checkpoint, make everything durable there. Then the journal begins anew.
//!
//! Records start at multiples of [`BLOCK`], so that no block with acknowledged data is ever written again before a
//! checkpoint has made it superfluous: a torn write can only spoil what nobody has been promised.
//!
//! | bytes | content of a record, little endian |
//! |---|---|
//! | 4 | CRC-32 of all that follows |
//! | 4 | bytes of the transactions |
//! | 8 | generation: which filling of the journal it belongs to |
//! | 8 | revision of the first transaction |
//! | | transactions: number of changes (4), then each change: 1 or 0 for a deletion, key, value; lengths are 4 bytes |
//!
//! The database holds the generation that its journal must have. A checkpoint raises it in the same commit, and so does
//! each opening; whatever older generations left behind the last record is therefore never taken for one.

use redb::StorageBackend;

use super::tables::{disk, put_slice, take_slice};
use crate::{Batch, StorageError};

/// Records start at multiples of this, so that no two share a block of the disk or a page of memory.
const BLOCK: usize = 4096;
/// Bytes before the transactions.
const HEADER: usize = 24;
/// Records are behind one another up to here in an ordinary store.
pub(super) const CAPACITY: u64 = 16 << 20;

/// One change as the journal has it: a key, and its new value unless it was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replayed {
    pub(super) key: String,
    pub(super) value: Option<Vec<u8>>,
}

/// A transaction as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) revision: u64,
    pub(super) changes: Vec<Replayed>,
}

/// The journal's file and the place of the next record.
pub(super) struct Journal {
    file: Box<dyn StorageBackend>,
    capacity: u64,
    generation: u64,
    at: u64,
}

/// A group of transactions that is ready to be written.
pub(super) struct Record(Vec<u8>);

impl Record {
    /// Encodes transactions of consecutive revisions, the first of which is `first`.
    pub(super) fn new(first: u64, batches: &[Batch]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[16..HEADER].copy_from_slice(&first.to_le_bytes());
        for batch in batches {
            bytes.extend_from_slice(&length(batch.changes.len()).to_le_bytes());
            for change in &batch.changes {
                bytes.push(u8::from(change.value.is_some()));
                put_slice(&mut bytes, change.key.encode().as_bytes());
                if let Some(value) = &change.value {
                    put_slice(&mut bytes, value);
                }
            }
        }
        let content = length(bytes.len() - HEADER);
        bytes[4..8].copy_from_slice(&content.to_le_bytes());
        Self(bytes)
    }

    /// Closes it for one generation: whole blocks, with the checksum.
    fn seal(mut self, generation: u64) -> Vec<u8> {
        self.0[8..16].copy_from_slice(&generation.to_le_bytes());
        let sum = crc32fast::hash(&self.0[4..]);
        self.0[..4].copy_from_slice(&sum.to_le_bytes());
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self.0
    }
}

fn length(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

impl Journal {
    /// Takes over a file. Nothing is appended before [`Self::begin`].
    pub(super) fn new(file: Box<dyn StorageBackend>, capacity: u64) -> Result<Self, StorageError> {
        let size = file.len().map_err(failed("opening the journal"))?;
        if size < capacity {
            file.set_len(capacity).map_err(failed("opening the journal"))?;
            file.sync_data().map_err(failed("opening the journal"))?;
        }
        Ok(Self { file, capacity, generation: 0, at: capacity })
    }

    /// The transactions of a generation that follow `revision` without a gap; the rest never was acknowledged, or is in
    /// the database.
    pub(super) fn read(&self, generation: u64, revision: u64) -> Result<Vec<Written>, StorageError> {
        let mut found = Vec::new();
        let (mut at, mut next) = (0, None);
        while let Some((first, content)) = self.record(at, generation)? {
            let follows = next.map_or(first <= revision + 1, |next| first == next);
            if !follows {
                break;
            }
            at += ((HEADER + content.len()) as u64).next_multiple_of(BLOCK as u64);
            let mut written = decode(first, &content)?;
            next = Some(first + written.len() as u64);
            written.retain(|transaction| transaction.revision > revision);
            found.extend(written);
        }
        Ok(found)
    }

    /// The first revision and the transactions of the record at an offset, if there is one of this generation.
    fn record(&self, at: u64, generation: u64) -> Result<Option<(u64, Vec<u8>)>, StorageError> {
        let reading = || failed("reading the journal");
        let size = self.file.len().map_err(reading())?;
        if at + HEADER as u64 > size {
            return Ok(None);
        }
        let mut header = [0; HEADER];
        self.file.read(at, &mut header).map_err(reading())?;
        let (sum, content) = (word(&header, 0), u64::from(word(&header, 4)));
        if long(&header, 8) != generation || at + HEADER as u64 + content > size {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(content).unwrap_or(0)];
        self.file.read(at + HEADER as u64, &mut bytes).map_err(reading())?;
        let mut check = crc32fast::Hasher::new();
        check.update(&header[4..]);
        check.update(&bytes);
        Ok((check.finalize() == sum).then(|| (long(&header, 16), bytes)))
    }

    /// Starts a generation over from the beginning. The database must hold it durably by now, and all that the journal
    /// had.
    pub(super) fn begin(&mut self, generation: u64) {
        (self.generation, self.at) = (generation, 0);
    }

    /// The generation that is being written.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether nothing was written in this generation.
    pub(super) fn is_empty(&self) -> bool {
        self.at == 0
    }

    /// Whether a record still fits.
    pub(super) fn fits(&self, record: &Record) -> bool {
        self.at + (record.0.len().next_multiple_of(BLOCK)) as u64 <= self.capacity
    }

    /// Writes a record that fits, and returns when it is durable.
    pub(super) fn append(&mut self, record: Record) -> Result<(), StorageError> {
        let bytes = record.seal(self.generation);
        self.file.write(self.at, &bytes).map_err(failed("writing the journal"))?;
        self.file.sync_data().map_err(failed("making the journal durable"))?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // What is not written by now never will be.
        let _ = self.file.close();
    }
}

fn failed(action: &'static str) -> impl Fn(std::io::Error) -> StorageError {
    move |error| disk(action)(redb::Error::Io(error))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// Reads the transactions of a record whose checksum is right.
fn decode(first: u64, mut rest: &[u8]) -> Result<Vec<Written>, StorageError> {
    let mut all = Vec::new();
    let mut revision = first;
    while !rest.is_empty() {
        let changes = decode_transaction(&mut rest);
        let changes = changes.ok_or_else(|| {
            let what = format!("the journal's record of revision {revision}, made by another version");
            StorageError::Corrupt { what }
        })?;
        all.push(Written { revision, changes });
        revision += 1;
    }
    Ok(all)
}

fn decode_transaction(rest: &mut &[u8]) -> Option<Vec<Replayed>> {
    let count = u32::from_le_bytes(rest.split_off(..4)?.try_into().ok()?);
    let mut changes = Vec::new();
    for _ in 0..count {
        let kept = *rest.split_off_first()? == 1;
        let key = String::from_utf8(take_slice(rest)?.to_vec()).ok()?;
        let value = if kept { Some(take_slice(rest)?.to_vec()) } else { None };
        changes.push(Replayed { key, value });
    }
    Some(changes)
}

#[cfg(test)]
mod tests;
