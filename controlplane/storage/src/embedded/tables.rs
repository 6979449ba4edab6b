//! The tables of the file and the encoding of their values.
//!
//! | table | key | value |
//! |---|---|---|
//! | `current` | encoded key | revision (u64, little endian), then the value |
//! | `log` | revision | a [`Record`] |
//! | `meta` | name | `format`, `offset`, `compacted`, `journal` (the generation that the journal must have) |
//!
//! The store's revision is the last key of the log, or `compacted` when the log is empty.

use std::hash::{BuildHasher, Hasher, RandomState};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::apply::Tables;
use super::journal::Journal;
use crate::{Offset, StorageError};

pub(super) const CURRENT: TableDefinition<&str, &[u8]> = TableDefinition::new("current");
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

pub(super) const COMPACTED: &str = "compacted";
const FORMAT: &str = "format";
const OFFSET: &str = "offset";
const JOURNAL: &str = "journal";
/// Version 1 had no journal. A program that knows no journal must not open a store that has one.
const FORMAT_VERSION: u64 = 2;

/// What an opened file says about itself.
pub(super) struct Prepared {
    pub(super) offset: Offset,
    pub(super) revision: u64,
}

/// An error of the database, with what was being done.
pub(super) fn disk<E: Into<redb::Error>>(action: &'static str) -> impl Fn(E) -> StorageError {
    move |error| StorageError::Disk { action, source: Box::new(error.into()) }
}

/// Creates what is missing, checks the rest, and does again what only the journal has. A raised offset empties the log:
/// its revisions were served under the old one. The journal has begun a new generation when this returns.
pub(super) fn prepare(
    database: &Database,
    journal: &mut Journal,
    least: Offset,
) -> Result<Prepared, StorageError> {
    let transaction = database.begin_write().map_err(disk("preparing the store"))?;
    let known = |name, initial| known(&transaction, name, initial);
    let format = known(FORMAT, FORMAT_VERSION)?;
    if !(1..=FORMAT_VERSION).contains(&format) {
        return Err(StorageError::Corrupt { what: format!("format {format}, made by another version") });
    }
    let offset = known(OFFSET, least.0)?;
    let compacted = known(COMPACTED, 1)?;
    // Of a new store it is like no other store's, whose journal may lie beside it.
    let generation = known(JOURNAL, RandomState::new().build_hasher().finish())?;
    let revision = replay(&transaction, journal, generation, compacted)?;
    if least.0 > offset {
        set(&transaction, OFFSET, least.0)?;
        set(&transaction, COMPACTED, revision)?;
        let mut log = transaction.open_table(LOG).map_err(disk("preparing the store"))?;
        log.retain(|_, _| false).map_err(disk("preparing the store"))?;
    }
    set(&transaction, FORMAT, FORMAT_VERSION)?;
    set(&transaction, JOURNAL, generation.wrapping_add(1))?;
    transaction.commit().map_err(disk("preparing the store"))?;
    journal.begin(generation.wrapping_add(1));
    Ok(Prepared { offset: Offset(offset.max(least.0)), revision })
}

/// Does again what the journal has and the tables have not; returns the last revision.
fn replay(
    transaction: &WriteTransaction,
    journal: &Journal,
    generation: u64,
    compacted: u64,
) -> Result<u64, StorageError> {
    let mut tables = Tables::open(transaction)?;
    let mut revision = tables.last()?.unwrap_or(compacted);
    for written in journal.read(generation, revision)? {
        revision = written.revision;
        tables.replay(written)?;
    }
    Ok(revision)
}

/// A number of the `meta` table, set to `initial` if there is none yet.
fn known(transaction: &WriteTransaction, name: &str, initial: u64) -> Result<u64, StorageError> {
    let mut meta = transaction.open_table(META).map_err(disk("preparing the store"))?;
    let found = meta.get(name).map_err(disk("preparing the store"))?.map(|value| value.value());
    if found.is_none() {
        meta.insert(name, initial).map_err(disk("preparing the store"))?;
    }
    Ok(found.unwrap_or(initial))
}

fn set(transaction: &WriteTransaction, name: &str, value: u64) -> Result<(), StorageError> {
    let mut meta = transaction.open_table(META).map_err(disk("preparing the store"))?;
    meta.insert(name, value).map_err(disk("preparing the store"))?;
    Ok(())
}

/// Makes a write transaction the last of its generation: once it is durable, the journal may begin the next one, whose
/// number is returned.
pub(super) fn end_generation(transaction: &WriteTransaction, journal: &Journal) -> Result<u64, StorageError> {
    let next = journal.generation().wrapping_add(1);
    set(transaction, JOURNAL, next)?;
    Ok(next)
}

/// The store's revision and what is compacted, as a read transaction sees them.
pub(super) fn bounds(transaction: &redb::ReadTransaction) -> Result<(u64, u64), StorageError> {
    let failed = || disk::<redb::Error>("reading the log");
    let meta = transaction.open_table(META).map_err(|e| failed()(e.into()))?;
    let compacted = meta.get(COMPACTED).map_err(|e| failed()(e.into()))?.map_or(1, |value| value.value());
    let log = transaction.open_table(LOG).map_err(|e| failed()(e.into()))?;
    let last = log.last().map_err(|e| failed()(e.into()))?.map(|(revision, _)| revision.value());
    Ok((compacted, last.unwrap_or(compacted)))
}

/// Begins a read transaction.
pub(super) fn begin_read(database: &Database) -> Result<redb::ReadTransaction, StorageError> {
    database.begin_read().map_err(disk("reading the store"))
}

/// A value with the revision that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) revision: u64,
    pub(super) value: Vec<u8>,
}

/// The bytes of a `current` row.
pub(super) fn encode_row(revision: u64, value: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(8 + value.len());
    row.extend_from_slice(&revision.to_le_bytes());
    row.extend_from_slice(value);
    row
}

/// Reads a `current` row: revision and value.
pub(super) fn decode_row(row: &[u8]) -> Result<(u64, &[u8]), StorageError> {
    let (revision, value) =
        row.split_first_chunk::<8>().ok_or_else(|| StorageError::Corrupt { what: "a value".to_owned() })?;
    Ok((u64::from_le_bytes(*revision), value))
}

/// One change of a transaction as the log has it: what it replaced, and whether it left a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Undo {
    pub(super) key: String,
    pub(super) deleted: bool,
    pub(super) previous: Option<Stored>,
}

/// The log's record of one transaction; it may be empty.
pub(super) fn encode_record(changes: &[Undo]) -> Vec<u8> {
    let mut out = Vec::new();
    for change in changes {
        out.push(u8::from(change.deleted) | u8::from(change.previous.is_some()) << 1);
        put_slice(&mut out, change.key.as_bytes());
        if let Some(previous) = &change.previous {
            out.extend_from_slice(&previous.revision.to_le_bytes());
            put_slice(&mut out, &previous.value);
        }
    }
    out
}

/// Reads a record back.
pub(super) fn decode_record(revision: u64, bytes: &[u8]) -> Result<Vec<Undo>, StorageError> {
    let mut rest = bytes;
    let mut changes = Vec::new();
    while !rest.is_empty() {
        let change = decode_undo(&mut rest);
        changes
            .push(change.ok_or_else(|| StorageError::Corrupt { what: format!("log revision {revision}") })?);
    }
    Ok(changes)
}

fn decode_undo(rest: &mut &[u8]) -> Option<Undo> {
    let flags = *rest.split_off_first()?;
    let key = String::from_utf8(take_slice(rest)?.to_vec()).ok()?;
    let previous = if flags & 2 == 0 {
        None
    } else {
        let revision = u64::from_le_bytes(rest.split_off(..8)?.try_into().ok()?);
        Some(Stored { revision, value: take_slice(rest)?.to_vec() })
    };
    (flags < 4).then_some(Undo { key, deleted: flags & 1 == 1, previous })
}

/// Lengths are u32: values are limited far below that.
pub(super) fn put_slice(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

pub(super) fn take_slice<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_le_bytes(rest.split_off(..4)?.try_into().ok()?);
    rest.split_off(..usize::try_from(length).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_equal() {
        let changes = vec![
            Undo { key: "-/pods/a/b".to_owned(), deleted: false, previous: None },
            Undo {
                key: "-/pods/a/c".to_owned(),
                deleted: true,
                previous: Some(Stored { revision: 7, value: b"{}".to_vec() }),
            },
        ];
        assert_eq!(decode_record(9, &encode_record(&changes)).unwrap(), changes);
        assert!(decode_record(9, &[]).unwrap().is_empty());
    }

    #[test]
    fn a_cut_record_is_reported_not_misread() {
        let whole = encode_record(&[Undo {
            key: "-/pods/a/b".to_owned(),
            deleted: false,
            previous: Some(Stored { revision: 7, value: b"{}".to_vec() }),
        }]);
        for length in 1..whole.len() {
            assert!(decode_record(9, &whole[..length]).is_err(), "{length}");
        }
    }
}
