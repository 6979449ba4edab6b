//! Reading the file: the current state, and the log as batches or history.
//!
//! The log holds what each change replaced. Walking it backwards from the current values gives, at each record,
//! both the state after it and the state before it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadTransaction, ReadableTable};

use super::tables::{self, CURRENT, LOG, Stored, Undo, disk};
use crate::{Batch, Change, Entry, History, Key, Offset, Revision, Snapshot, StorageError, TailError};

/// All current values and the revision they are at.
pub(super) fn scan(database: &Database, offset: Offset) -> Result<Snapshot, StorageError> {
    let transaction = tables::begin_read(database)?;
    let (_, revision) = tables::bounds(&transaction)?;
    let current = transaction.open_table(CURRENT).map_err(disk("reading the store"))?;
    let mut entries = Vec::new();
    for row in current.iter().map_err(disk("reading the store"))? {
        let (key, value) = row.map_err(disk("reading the store"))?;
        let (written, value) = tables::decode_row(value.value())?;
        let value = Bytes::copy_from_slice(value);
        entries.push(Entry { key: decode_key(key.value())?, value, revision: offset.served(written) });
    }
    Ok(Snapshot { revision: offset.served(revision), entries })
}

/// The transactions in `(after, through]`.
pub(super) fn batches(
    database: &Database,
    offset: Offset,
    after: Revision,
    through: Revision,
) -> Result<Vec<Arc<Batch>>, TailError> {
    let steps = walk(database, offset, after, through)?;
    let batch = |(revision, changes): (u64, Vec<Step>)| {
        let changes = changes.into_iter().map(|step| step.change).collect();
        Arc::new(Batch { revision: offset.served(revision), changes })
    };
    Ok(steps.into_iter().map(batch).collect())
}

/// The changes in `(after, through]` with what they replaced.
pub(super) fn history(
    database: &Database,
    offset: Offset,
    after: Revision,
    through: Revision,
) -> Result<Vec<History>, TailError> {
    let steps = walk(database, offset, after, through)?;
    let mut history = Vec::new();
    for (revision, changes) in steps {
        let revision = offset.served(revision);
        history.extend(changes.into_iter().map(|step| {
            let key = step.change.key.clone();
            let previous = step.previous.map(|stored| Entry {
                key,
                revision: offset.served(stored.revision),
                value: stored.value.into(),
            });
            History { revision, change: step.change, previous }
        }));
    }
    Ok(history)
}

/// One change with both of its states.
struct Step {
    change: Change,
    previous: Option<Stored>,
}

fn walk(
    database: &Database,
    offset: Offset,
    after: Revision,
    through: Revision,
) -> Result<Vec<(u64, Vec<Step>)>, TailError> {
    let transaction = tables::begin_read(database)?;
    let (compacted, last) = tables::bounds(&transaction)?;
    let oldest = offset.served(compacted);
    let Some(after) = offset.own(after).filter(|after| *after >= compacted) else {
        return Err(TailError::Compacted { oldest });
    };
    let Some(through) = offset.own(through).filter(|through| *through > after) else { return Ok(Vec::new()) };
    let mut steps = Backwards::new(&transaction)?.walk(after, last)?;
    steps.reverse();
    steps.retain(|(revision, _)| *revision <= through);
    Ok(steps)
}

/// A walk from the current state into the past.
struct Backwards {
    log: redb::ReadOnlyTable<u64, &'static [u8]>,
    current: redb::ReadOnlyTable<&'static str, &'static [u8]>,
    /// What the keys seen so far were just before the last record walked over.
    state: HashMap<String, Option<Stored>>,
}

impl Backwards {
    fn new(transaction: &ReadTransaction) -> Result<Self, StorageError> {
        Ok(Self {
            log: transaction.open_table(LOG).map_err(disk("reading the log"))?,
            current: transaction.open_table(CURRENT).map_err(disk("reading the log"))?,
            state: HashMap::new(),
        })
    }

    /// The records in `(after, last]`, newest first. A gap is an error.
    fn walk(mut self, after: u64, last: u64) -> Result<Vec<(u64, Vec<Step>)>, StorageError> {
        let mut steps = Vec::new();
        for revision in (after + 1..=last).rev() {
            let record = self.log.get(revision).map_err(disk("reading the log"))?;
            let missing =
                || StorageError::Corrupt { what: format!("log revision {revision}, which is missing") };
            let changes = tables::decode_record(revision, record.ok_or_else(missing)?.value())?;
            let step = changes.into_iter().rev().map(|undo| self.step(revision, undo));
            let mut step = step.collect::<Result<Vec<_>, _>>()?;
            step.reverse();
            steps.push((revision, step));
        }
        Ok(steps)
    }

    fn step(&mut self, revision: u64, undo: Undo) -> Result<Step, StorageError> {
        let after = match self.state.remove(&undo.key) {
            Some(known) => known,
            None => self.now(&undo.key)?,
        };
        let consistent = match &after {
            Some(stored) => !undo.deleted && stored.revision == revision,
            None => undo.deleted,
        };
        if !consistent {
            let what = format!("log revision {revision}, which contradicts the state of {}", undo.key);
            return Err(StorageError::Corrupt { what });
        }
        let key = decode_key(&undo.key)?;
        self.state.insert(undo.key, undo.previous.clone());
        let change = Change { key, value: after.map(|stored| stored.value.into()) };
        Ok(Step { change, previous: undo.previous })
    }

    fn now(&self, key: &str) -> Result<Option<Stored>, StorageError> {
        let Some(row) = self.current.get(key).map_err(disk("reading the log"))? else { return Ok(None) };
        let (revision, value) = tables::decode_row(row.value())?;
        Ok(Some(Stored { revision, value: value.to_vec() }))
    }
}

fn decode_key(text: &str) -> Result<Key, StorageError> {
    Key::decode(text).map_err(|error| StorageError::Corrupt { what: error.to_string() })
}
