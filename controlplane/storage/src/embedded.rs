//! The embedded store: a redb file with current values and a revision log, and a journal in front of it.
//!
//! One writer thread makes many transactions durable with one sync and acknowledges them after it ([`writer`]); what it
//! syncs is a record of the [`journal`], which an opening reads back. Once closed, the redb file alone is the store. The
//! log holds what each transaction replaced ([`log`]), so that a log record and the current values together give both
//! the new and the previous state of every change, at the price of one copy of each value. redb's lock on the
//! file is leadership: a second process cannot open the store.

mod apply;
mod journal;
mod log;
mod tables;
mod writer;
mod zeroed_file;

#[cfg(test)]
mod lossy;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use parking_lot::Mutex;
use redb::{Builder, Database, DatabaseError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::feed::{self, Feed};
use crate::leadership::LocalRoles;
use crate::{
    CommitError, History, Leadership, Offset, Revision, Snapshot, Storage, StorageError, Tail, TailError,
    Transaction,
};
use journal::{CAPACITY, Journal};
use writer::{Command, Writer};
use zeroed_file::ZeroedFile;

/// Transactions that may wait for the writer; more wait in their callers.
const QUEUE: usize = 1024;

/// Where the store is and how it is opened.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// The database's file; the journal lies beside it, as `.journal`. The directory must exist.
    pub path: PathBuf,
    /// Memory for the database's pages, in bytes. Small: every value is in the watch cache as well.
    pub page_cache: usize,
    /// The least distance between the file's own revisions and the served ones. Raise it over the last revision
    /// ever served when a backup is restored.
    pub offset: Offset,
}

impl EmbeddedConfig {
    /// A store in this file, with defaults.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), page_cache: 8 << 20, offset: Offset::default() }
    }
}

/// The embedded store.
#[derive(Debug)]
pub struct EmbeddedStorage {
    shared: Arc<Shared>,
    commands: Option<mpsc::Sender<Command>>,
    writer: Option<JoinHandle<()>>,
}

/// What the writer thread and the readers share.
#[derive(Debug)]
struct Shared {
    database: Database,
    offset: Offset,
    feed: Feed,
    roles: LocalRoles,
    stopped: Mutex<Option<String>>,
    failed: CancellationToken,
}

impl EmbeddedStorage {
    /// Opens the store, or creates it. Fails when another process has it open.
    pub fn open(config: &EmbeddedConfig) -> Result<Self, StorageError> {
        create(&config.path).map_err(tables::disk("creating the store"))?;
        let file = open_file(&config.path).map_err(tables::disk("opening its file"))?;
        let opened = Builder::new().set_cache_size(config.page_cache).create_with_backend(file);
        let database = opened.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => {
                StorageError::Locked { path: config.path.display().to_string() }
            }
            other => tables::disk("opening the store")(other),
        })?;
        // The lock on the database is held by now, and is the journal's as well.
        let journal = Journal::new(Box::new(open_journal(&config.path)?), CAPACITY)?;
        Self::start(database, journal, config.offset)
    }

    fn start(database: Database, mut journal: Journal, least: Offset) -> Result<Self, StorageError> {
        let state = tables::prepare(&database, &mut journal, least)?;
        let shared = Arc::new(Shared {
            database,
            offset: state.offset,
            feed: Feed::new(state.offset.served(state.revision)),
            roles: LocalRoles::default(),
            stopped: Mutex::default(),
            failed: CancellationToken::new(),
        });
        let (commands, queue) = mpsc::channel(QUEUE);
        let thread = Writer::new(Arc::clone(&shared), journal, state.revision);
        let guard = PanicGuard(Arc::clone(&shared));
        let writer = std::thread::Builder::new().name("skep-store".to_owned()).spawn(move || {
            let _guard = guard;
            thread.run(queue);
        });
        let writer = writer.map_err(|error| tables::disk("starting its writer")(redb::Error::Io(error)))?;
        Ok(Self { shared, commands: Some(commands), writer: Some(writer) })
    }

    /// A future that resolves when the store has failed and must be opened again; it does not keep the store open.
    pub fn failure(&self) -> impl Future<Output = ()> + Send + 'static {
        self.shared.failed.clone().cancelled_owned()
    }

    /// Hands a command to the writer and waits for the answer.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Asked> {
        let (reply, answer) = oneshot::channel();
        let commands = self.commands.as_ref().ok_or(Asked::Refused)?;
        commands.send(command(reply)).await.map_err(|_closed| Asked::Refused)?;
        answer.await.map_err(|_dropped| Asked::Unanswered)
    }

    /// Reads off the async threads.
    async fn read<T: Send + 'static, E: From<StorageError> + Send + 'static>(
        &self,
        read: impl FnOnce(&Shared) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || read(&shared)).await {
            Ok(result) => result,
            Err(error) => Err(StorageError::Stopped { reason: error.to_string() }.into()),
        }
    }
}

/// Makes an empty store if there is none. It gets its name when it is complete: a power failure in between leaves no
/// file that cannot be opened.
fn create(path: &Path) -> Result<(), redb::Error> {
    if path.exists() {
        return Ok(());
    }
    let unfinished = path.with_extension(format!("new-{}", std::process::id()));
    drop(Builder::new().create(&unfinished)?);
    // Unlike a rename, a link never replaces what another process has made meanwhile.
    let linked = std::fs::hard_link(&unfinished, path);
    std::fs::remove_file(&unfinished)?;
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(sync_directory(path)?),
    }
}

/// Makes the names of the files beside this one durable.
fn sync_directory(path: &Path) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn open_file(path: &Path) -> Result<ZeroedFile, redb::Error> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    ZeroedFile::new(file)
}

/// The journal lies beside the database's file. Both names are durable when this returns.
fn open_journal(database: &Path) -> Result<ZeroedFile, StorageError> {
    let opened = open_file(&database.with_extension("journal")).and_then(|file| {
        sync_directory(database)?;
        Ok(file)
    });
    opened.map_err(tables::disk("opening the journal"))
}

/// Why the writer gave no answer.
enum Asked {
    Refused,
    Unanswered,
}

impl Shared {
    /// Ends the store after a failure that leaves its state in doubt.
    fn stop(&self, reason: String) {
        tracing::error!(reason, "the embedded store stops: open it again to go on");
        self.stopped.lock().get_or_insert(reason);
        self.feed.close();
        self.roles.end_all();
        self.failed.cancel();
    }

    fn stop_error(&self) -> StorageError {
        let reason = self.stopped.lock().clone().unwrap_or_else(|| "it was closed".to_owned());
        StorageError::Stopped { reason }
    }
}

/// Held by the writer's thread: a writer that panics stops the store for all to see, instead of leaving it to answer
/// reads from a frozen state.
struct PanicGuard(Arc<Shared>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop("its writer panicked".to_owned());
        }
    }
}

impl Drop for EmbeddedStorage {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing left to finish.
            let _ = writer.join();
        }
        self.shared.feed.close();
        self.shared.roles.end_all();
    }
}

#[async_trait]
impl Storage for EmbeddedStorage {
    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        transaction.check()?;
        match self.ask(|reply| Command::Commit { transaction, reply }).await {
            Ok(result) => result,
            Err(Asked::Refused) => Err(CommitError::Unavailable(self.shared.stop_error())),
            Err(Asked::Unanswered) => Err(CommitError::OutcomeUnknown(self.shared.stop_error())),
        }
    }

    async fn revision(&self) -> Result<Revision, StorageError> {
        Ok(self.shared.feed.published())
    }

    async fn scan(&self) -> Result<Snapshot, StorageError> {
        self.read(|shared| log::scan(&shared.database, shared.offset)).await
    }

    async fn tail(&self, after: Revision) -> Result<Tail, TailError> {
        let (published, live) = self.shared.feed.subscribe();
        if self.shared.stopped.lock().is_some() {
            return Err(self.shared.stop_error().into());
        }
        let past =
            self.read(move |shared| log::batches(&shared.database, shared.offset, after, published)).await?;
        Ok(feed::tail(after, past, live))
    }

    async fn history(&self, after: Revision, through: Revision) -> Result<Vec<History>, TailError> {
        self.read(move |shared| log::history(&shared.database, shared.offset, after, through)).await
    }

    async fn compact(&self, through: Revision) -> Result<(), StorageError> {
        match self.ask(|reply| Command::Compact { through, reply }).await {
            Ok(result) => result,
            Err(_) => Err(self.shared.stop_error()),
        }
    }

    async fn campaign(&self, role: &str, _identity: &str) -> Result<Leadership, StorageError> {
        if self.shared.stopped.lock().is_some() {
            return Err(self.shared.stop_error());
        }
        Ok(self.shared.roles.campaign(role).await)
    }
}
