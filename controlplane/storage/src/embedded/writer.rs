//! The writer thread: group commit.
//!
//! Transactions that arrive while one fsync runs share the next. Each is checked against what those before it in
//! the group did, so a group is as if they had come one by one; answers go out after the fsync only.

use std::sync::Arc;

use redb::{ReadableTable, Table, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::tables::{self, COMPACTED, CURRENT, LOG, META, Stored, Undo, disk};
use crate::{Batch, Change, CommitError, Expect, Op, Revision, StorageError, Transaction};

/// Most transactions of a group.
const GROUP: usize = 512;
/// A group is closed when its values reach this size.
const GROUP_BYTES: usize = 8 << 20;
/// Log records removed in one commit.
const COMPACT_STEP: u64 = 2_000;

/// What the writer is asked to do.
pub(super) enum Command {
    /// Commit a transaction.
    Commit { transaction: Transaction, reply: oneshot::Sender<Result<Revision, CommitError>> },
    /// Forget the log up to a revision.
    Compact { through: Revision, reply: oneshot::Sender<Result<(), StorageError>> },
}

/// The one writer of the file.
pub(super) struct Writer {
    shared: Arc<Shared>,
    revision: u64,
}

type Reply = oneshot::Sender<Result<Revision, CommitError>>;

/// Transactions that wait for the same fsync.
#[derive(Default)]
struct Group {
    batches: Vec<Batch>,
    committed: Vec<(Reply, Revision)>,
    refused: Vec<(Reply, CommitError)>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, revision: u64) -> Self {
        Self { shared, revision }
    }

    /// Runs until all senders are gone or the store fails.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        while let Some(first) = queue.blocking_recv() {
            let mut next = Some(first);
            while let Some(command) = next.take() {
                let healthy = match command {
                    Command::Commit { transaction, reply } => {
                        let (group, other) = collect(transaction, reply, &mut queue);
                        next = other;
                        self.commit(group)
                    }
                    Command::Compact { through, reply } => self.compact(through, reply),
                };
                if !healthy {
                    self.refuse(next, queue);
                    return;
                }
            }
        }
    }

    /// Answers those who are still waiting after a failure: nothing of theirs was written.
    fn refuse(&self, next: Option<Command>, mut queue: mpsc::Receiver<Command>) {
        queue.close();
        for command in next.into_iter().chain(std::iter::from_fn(|| queue.blocking_recv())) {
            match command {
                Command::Commit { reply, .. } => {
                    let _ = reply.send(Err(CommitError::Unavailable(self.shared.stop_error())));
                }
                Command::Compact { reply, .. } => {
                    let _ = reply.send(Err(self.shared.stop_error()));
                }
            }
        }
    }

    /// Commits a group; false when the store has failed.
    fn commit(&mut self, transactions: Vec<(Transaction, Reply)>) -> bool {
        let began = self.revision;
        let mut group = Group::default();
        let outcome = self.write(transactions, &mut group);
        match outcome {
            Ok(()) => {
                self.shared.feed.publish(group.batches);
                for (reply, revision) in group.committed {
                    // A caller that gave up still has its write.
                    let _ = reply.send(Ok(revision));
                }
                for (reply, refusal) in group.refused {
                    let _ = reply.send(Err(refusal));
                }
                true
            }
            Err(error) => {
                self.revision = began;
                self.shared.stop(report(&error));
                for (reply, _) in group.committed {
                    let _ = reply.send(Err(CommitError::OutcomeUnknown(self.shared.stop_error())));
                }
                for (reply, _) in group.refused {
                    let _ = reply.send(Err(CommitError::Unavailable(self.shared.stop_error())));
                }
                false
            }
        }
    }

    fn write(
        &mut self,
        transactions: Vec<(Transaction, Reply)>,
        group: &mut Group,
    ) -> Result<(), StorageError> {
        let database = self.shared.database.begin_write().map_err(disk("beginning a write"))?;
        {
            let mut tables = Tables::open(&database)?;
            for (transaction, reply) in transactions {
                let conflict = tables.conflict(&transaction, self)?;
                if let Some(conflict) = conflict {
                    group.refused.push((reply, conflict));
                    continue;
                }
                self.revision += 1;
                let revision = self.shared.offset.served(self.revision);
                // Answered as unknown if anything fails from here on.
                group.committed.push((reply, revision));
                let changes = tables.apply(transaction, self.revision)?;
                group.batches.push(Batch { revision, changes });
            }
        }
        if group.batches.is_empty() {
            return database.abort().map_err(disk("ending a write"));
        }
        database.commit().map_err(disk("making a write durable"))
    }

    /// Shortens the log in steps, so that no commit waits long; false when the store has failed.
    fn compact(&mut self, through: Revision, reply: oneshot::Sender<Result<(), StorageError>>) -> bool {
        let through = self.shared.offset.own(through).unwrap_or(0).min(self.revision);
        let result = self.forget(through);
        let healthy = result.is_ok();
        if let Err(error) = &result {
            self.shared.stop(report(error));
        }
        let _ = reply.send(result);
        healthy
    }

    fn forget(&self, through: u64) -> Result<(), StorageError> {
        let failed = || disk::<redb::Error>("compacting the log");
        loop {
            let transaction = self.shared.database.begin_write().map_err(|e| failed()(e.into()))?;
            let upto;
            {
                let mut meta = transaction.open_table(META).map_err(|e| failed()(e.into()))?;
                let compacted =
                    meta.get(COMPACTED).map_err(|e| failed()(e.into()))?.map_or(1, |value| value.value());
                upto = through.min(compacted + COMPACT_STEP);
                if upto > compacted {
                    let mut log = transaction.open_table(LOG).map_err(|e| failed()(e.into()))?;
                    log.retain_in(..=upto, |_, _| false).map_err(|e| failed()(e.into()))?;
                    meta.insert(COMPACTED, upto).map_err(|e| failed()(e.into()))?;
                }
            }
            transaction.commit().map_err(|e| failed()(e.into()))?;
            if upto >= through {
                return Ok(());
            }
        }
    }
}

/// The whole chain of an error, for the reason a store stopped.
fn report(error: &StorageError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Takes the transactions that are waiting, up to a group, and the command behind them if it is another one.
fn collect(
    first: Transaction,
    reply: Reply,
    queue: &mut mpsc::Receiver<Command>,
) -> (Vec<(Transaction, Reply)>, Option<Command>) {
    let mut bytes = size(&first);
    let mut group = vec![(first, reply)];
    while group.len() < GROUP && bytes < GROUP_BYTES {
        match queue.try_recv() {
            Ok(Command::Commit { transaction, reply }) => {
                bytes += size(&transaction);
                group.push((transaction, reply));
            }
            Ok(other) => return (group, Some(other)),
            Err(_) => break,
        }
    }
    (group, None)
}

fn size(transaction: &Transaction) -> usize {
    transaction.ops.iter().filter_map(Op::value).map(bytes::Bytes::len).sum()
}

/// The tables of one group's write transaction.
struct Tables<'txn> {
    current: Table<'txn, &'static str, &'static [u8]>,
    log: Table<'txn, u64, &'static [u8]>,
}

impl<'txn> Tables<'txn> {
    fn open(transaction: &'txn WriteTransaction) -> Result<Self, StorageError> {
        Ok(Self {
            current: transaction.open_table(CURRENT).map_err(disk("beginning a write"))?,
            log: transaction.open_table(LOG).map_err(disk("beginning a write"))?,
        })
    }

    /// The first precondition that does not hold.
    fn conflict(
        &self,
        transaction: &Transaction,
        writer: &Writer,
    ) -> Result<Option<CommitError>, StorageError> {
        for op in transaction.ops.iter().filter(|op| op.expect() != Expect::Any) {
            let row = self.current.get(op.key().encode().as_str()).map_err(disk("checking a write"))?;
            let written = row.map(|row| tables::decode_row(row.value()).map(|(revision, _)| revision));
            let actual = written.transpose()?.map(|own| writer.shared.offset.served(own));
            if !op.expect().holds(actual) {
                return Ok(Some(CommitError::Conflict { key: op.key().clone(), actual }));
            }
        }
        Ok(None)
    }

    /// Writes values and log record; returns what changed.
    fn apply(&mut self, transaction: Transaction, revision: u64) -> Result<Vec<Change>, StorageError> {
        let mut changes = Vec::with_capacity(transaction.ops.len());
        let mut undos = Vec::with_capacity(transaction.ops.len());
        for op in transaction.ops {
            let path = op.key().encode();
            let (key, value) = match op {
                Op::Put { key, value, .. } => (key, Some(value)),
                Op::Delete { key, .. } => (key, None),
            };
            let replaced = match &value {
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
                continue;
            }
            undos.push(Undo { key: path, deleted: value.is_none(), previous });
            changes.push(Change { key, value });
        }
        let record = tables::encode_record(&undos);
        self.log.insert(revision, &*record).map_err(disk("writing the log"))?;
        Ok(changes)
    }
}
