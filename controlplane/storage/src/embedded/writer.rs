//! The writer thread: group commit.
//!
//! Transactions that arrive while one sync runs share the next. Each is checked against what those before it in
//! the group did, so a group is as if they had come one by one; answers go out after the sync only. What is synced is
//! the group's record in the journal; the group that no longer fits in there is committed by the database itself, and
//! with it all before it.

use std::sync::Arc;

use redb::{Durability, ReadableTable, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::apply::Tables;
use super::journal::{Journal, Record};
use super::tables::{self, COMPACTED, LOG, META, disk};
use crate::{Batch, CommitError, Op, Revision, StorageError, Transaction};

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
    journal: Journal,
    revision: u64,
}

type Reply = oneshot::Sender<Result<Revision, CommitError>>;

/// Transactions that wait for the same sync.
#[derive(Default)]
struct Group {
    batches: Vec<Batch>,
    committed: Vec<(Reply, Revision)>,
    refused: Vec<(Reply, CommitError)>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, journal: Journal, revision: u64) -> Self {
        Self { shared, journal, revision }
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
        self.close();
    }

    /// Leaves nothing in the journal, so that the database's file is the whole store.
    fn close(&mut self) {
        if self.journal.is_empty() {
            return;
        }
        let closed = self.begin().and_then(|transaction| self.checkpoint(transaction));
        if let Err(error) = closed {
            tracing::warn!(reason = report(&error), "the next opening will have to read the journal");
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
        let began = self.revision;
        let database = self.begin()?;
        {
            let mut tables = Tables::open(&database)?;
            for (transaction, reply) in transactions {
                let conflict = tables.conflict(&transaction, self.shared.offset)?;
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
        let record = Record::new(began + 1, &group.batches);
        if !self.journal.fits(&record) {
            return self.checkpoint(database);
        }
        self.journal.append(record)?;
        database.commit().map_err(disk("ending a write"))
    }

    /// Begins a transaction of the database that is not durable by itself.
    fn begin(&self) -> Result<WriteTransaction, StorageError> {
        let mut transaction = self.shared.database.begin_write().map_err(disk("beginning a write"))?;
        transaction.set_durability(Durability::None).map_err(disk("beginning a write"))?;
        Ok(transaction)
    }

    /// Commits so that the database holds everything durably, and begins the journal anew.
    fn checkpoint(&mut self, mut transaction: WriteTransaction) -> Result<(), StorageError> {
        let next = tables::end_generation(&transaction, &self.journal)?;
        transaction.set_durability(Durability::Immediate).map_err(disk("making a write durable"))?;
        transaction.commit().map_err(disk("making a write durable"))?;
        self.journal.begin(next);
        Ok(())
    }

    /// Shortens the log in steps, so that no commit waits long; false when the store has failed. It is durable with the
    /// next checkpoint: a log that is longer than it need be harms nobody.
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
            let transaction = self.begin()?;
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
