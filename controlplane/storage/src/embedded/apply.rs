//! What a transaction does to the tables, be it new or read back from the journal.

use redb::{ReadableTable, Table, WriteTransaction};

use super::journal::Written;
use super::tables::{self, CURRENT, LOG, Stored, Undo, disk};
use crate::{Change, CommitError, Expect, Offset, Op, StorageError, Transaction};

/// The tables of one write transaction of the database.
pub(super) struct Tables<'txn> {
    current: Table<'txn, &'static str, &'static [u8]>,
    log: Table<'txn, u64, &'static [u8]>,
}

impl<'txn> Tables<'txn> {
    pub(super) fn open(transaction: &'txn WriteTransaction) -> Result<Self, StorageError> {
        Ok(Self {
            current: transaction.open_table(CURRENT).map_err(disk("beginning a write"))?,
            log: transaction.open_table(LOG).map_err(disk("beginning a write"))?,
        })
    }

    /// The revision of the last transaction in the log.
    pub(super) fn last(&self) -> Result<Option<u64>, StorageError> {
        let last = self.log.last().map_err(disk("reading the log"))?;
        Ok(last.map(|(revision, _)| revision.value()))
    }

    /// The first precondition that does not hold.
    pub(super) fn conflict(
        &self,
        transaction: &Transaction,
        offset: Offset,
    ) -> Result<Option<CommitError>, StorageError> {
        for op in transaction.ops.iter().filter(|op| op.expect() != Expect::Any) {
            let row = self.current.get(op.key().encode().as_str()).map_err(disk("checking a write"))?;
            let written = row.map(|row| tables::decode_row(row.value()).map(|(revision, _)| revision));
            let actual = written.transpose()?.map(|own| offset.served(own));
            if !op.expect().holds(actual) {
                return Ok(Some(CommitError::Conflict { key: op.key().clone(), actual }));
            }
        }
        Ok(None)
    }

    /// Writes values and log record; returns what changed.
    pub(super) fn apply(
        &mut self,
        transaction: Transaction,
        revision: u64,
    ) -> Result<Vec<Change>, StorageError> {
        let mut changes = Vec::with_capacity(transaction.ops.len());
        let mut undos = Vec::with_capacity(transaction.ops.len());
        for op in transaction.ops {
            let path = op.key().encode();
            let (key, value) = match op {
                Op::Put { key, value, .. } => (key, Some(value)),
                Op::Delete { key, .. } => (key, None),
            };
            if let Some(undo) = self.set(path, value.as_deref(), revision)? {
                undos.push(undo);
                changes.push(Change { key, value });
            }
        }
        self.record(revision, &undos)?;
        Ok(changes)
    }

    /// Does a transaction of the journal again.
    pub(super) fn replay(&mut self, transaction: Written) -> Result<(), StorageError> {
        let revision = transaction.revision;
        let mut undos = Vec::with_capacity(transaction.changes.len());
        for change in transaction.changes {
            undos.extend(self.set(change.key, change.value.as_deref(), revision)?);
        }
        self.record(revision, &undos)
    }

    /// Sets or removes one value; `None` when it was absent and stays so.
    fn set(
        &mut self,
        path: String,
        value: Option<&[u8]>,
        revision: u64,
    ) -> Result<Option<Undo>, StorageError> {
        let replaced = match value {
            Some(value) => self.current.insert(path.as_str(), &*tables::encode_row(revision, value)),
            None => self.current.remove(path.as_str()),
        };
        let replaced = replaced.map_err(disk("writing a value"))?;
        let previous = replaced.map(|row| {
            let (revision, value) = tables::decode_row(row.value())?;
            Ok::<_, StorageError>(Stored { revision, value: value.to_vec() })
        });
        let previous = previous.transpose()?;
        if value.is_none() && previous.is_none() {
            return Ok(None);
        }
        Ok(Some(Undo { key: path, deleted: value.is_none(), previous }))
    }

    fn record(&mut self, revision: u64, undos: &[Undo]) -> Result<(), StorageError> {
        let record = tables::encode_record(undos);
        self.log.insert(revision, &*record).map_err(disk("writing the log"))?;
        Ok(())
    }
}
