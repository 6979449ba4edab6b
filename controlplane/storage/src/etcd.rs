//! The etcd store, for control planes of more than one machine.
//!
//! | key | value |
//! |---|---|
//! | `/skep/objects/KEY` | a stored value |
//! | `/skep/head` | written by every transaction, as its last operation |
//! | `/skep/offset` | the distance between etcd's revisions and the served ones |
//! | `/skep-leaders/ROLE/..` | elections |
//!
//! The head key makes this store exact on every etcd: its modification revision is the revision of our last
//! transaction, whatever else lives in the same etcd, and its event closes each transaction's events in a watch.
//! So neither progress notifications nor progress requests are needed, which are wrong before 3.4.31 and 3.5.13.

mod leader;
mod watch;

use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, Error, GetOptions, KeyValue, KvClient, Txn, TxnOp,
    TxnOpResponse, TxnResponse, WatchClient,
};
use tonic::Code;

use crate::{
    CommitError, Entry, Expect, History, Key, Leadership, Offset, Op, Revision, Snapshot, Storage,
    StorageError, Tail, TailError, Transaction,
};

const OBJECTS: &str = "/skep/objects/";
const HEAD: &str = "/skep/head";
const OFFSET: &str = "/skep/offset";

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Keys fetched at once by a scan.
const PAGE: i64 = 256;
/// Largest answer taken: a page of large values, or the catch-up of a watch.
const MESSAGE: usize = 1 << 30;

/// Which etcd, and how revisions are served.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// URLs of the members' client ports.
    pub endpoints: Vec<String>,
    /// The least distance between etcd's revisions and the served ones. Raise it over the last revision ever
    /// served when moving here from another store.
    pub offset: Offset,
    /// How long leadership outlives the last sign of life.
    pub lease: Duration,
}

impl EtcdConfig {
    /// These endpoints, with defaults.
    #[must_use]
    pub fn new(endpoints: Vec<String>) -> Self {
        Self { endpoints, offset: Offset::default(), lease: Duration::from_secs(15) }
    }
}

/// The etcd store.
pub struct EtcdStorage {
    client: Client,
    offset: Offset,
    lease: Duration,
}

impl EtcdStorage {
    /// Connects, and prepares an etcd that has not been used yet.
    pub async fn connect(config: &EtcdConfig) -> Result<Self, StorageError> {
        let options = ConnectOptions::new()
            .with_connect_timeout(TIMEOUT)
            .with_keep_alive(Duration::from_secs(10), Duration::from_secs(5))
            .with_keep_alive_while_idle(true);
        let client = answer("connecting", Client::connect(&config.endpoints, Some(options))).await?;
        let mut storage = Self { client, offset: Offset::default(), lease: config.lease };
        storage.offset = storage.prepare(config.offset).await?;
        Ok(storage)
    }

    /// Writes head and offset if there are none, and raises the offset if it is lower than `least`.
    async fn prepare(&self, least: Offset) -> Result<Offset, StorageError> {
        let fresh = Txn::new()
            .when(vec![Compare::version(HEAD, CompareOp::Equal, 0)])
            .and_then(vec![TxnOp::put(OFFSET, least.0.to_string(), None), TxnOp::put(HEAD, "", None)])
            .or_else(vec![TxnOp::get(OFFSET, None)]);
        let response = answer("reading its offset", self.kv().txn(fresh)).await?;
        if response.succeeded() {
            return Ok(least);
        }
        let text = got(&response).into_iter().flatten().next().map(|kv| kv.value().to_vec());
        let text = String::from_utf8(text.unwrap_or_default()).unwrap_or_default();
        let stored = text.parse().map(Offset);
        let stored = stored.map_err(|_| StorageError::Corrupt { what: format!("the offset {text:?}") })?;
        if least.0 <= stored.0 {
            return Ok(stored);
        }
        // What was served under the old offset must not be read under the new one.
        let raise = Txn::new()
            .when(vec![Compare::value(OFFSET, CompareOp::Equal, text)])
            .and_then(vec![TxnOp::put(OFFSET, least.0.to_string(), None), TxnOp::put(HEAD, "", None)]);
        let raised = answer("raising its offset", self.kv().txn(raise)).await?;
        if !raised.succeeded() {
            let reason =
                "another control plane is raising the offset at the same time: start again".to_owned();
            return Err(StorageError::Stopped { reason });
        }
        let now = raised.header().map_or(0, etcd_client::ResponseHeader::revision);
        self.compact_own(now).await?;
        Ok(least)
    }

    fn kv(&self) -> KvClient {
        self.client.kv_client().max_decoding_message_size(MESSAGE)
    }

    fn watches(&self) -> WatchClient {
        self.client.watch_client().max_decoding_message_size(MESSAGE)
    }

    /// etcd's revision of our last transaction, and etcd's own present revision.
    async fn head(&self) -> Result<(i64, i64), StorageError> {
        let response = answer("reading its revision", self.kv().get(HEAD, None)).await?;
        let head = response.kvs().first().map_or(0, KeyValue::mod_revision);
        Ok((head, response.header().map_or(head, etcd_client::ResponseHeader::revision)))
    }

    async fn compact_own(&self, revision: i64) -> Result<(), StorageError> {
        match tokio::time::timeout(TIMEOUT, self.kv().compact(revision, None)).await {
            // Compacted that far already, perhaps by another control plane.
            Ok(Err(Error::GRpcStatus(status))) if status.code() == Code::OutOfRange => Ok(()),
            Ok(Err(error)) => Err(etcd("compacting")(error)),
            Ok(Ok(_)) => Ok(()),
            Err(_elapsed) => Err(silent("compacting")),
        }
    }

    fn served(&self, own: i64) -> Revision {
        self.offset.served(u64::try_from(own).unwrap_or(0))
    }

    /// etcd's revision of a served one; zero when it lies before the offset.
    fn own(&self, served: Revision) -> i64 {
        self.offset.own(served).and_then(|own| i64::try_from(own).ok()).unwrap_or(0)
    }

    fn compare(&self, op: &Op) -> Option<Compare> {
        let path = path(op.key());
        match op.expect() {
            Expect::Absent => Some(Compare::version(path, CompareOp::Equal, 0)),
            Expect::Exists => Some(Compare::version(path, CompareOp::Greater, 0)),
            Expect::At(revision) => {
                // No key has revision -1: what lies before the offset matches nothing.
                let own = self.offset.own(revision).filter(|own| *own > 0);
                let own = own.and_then(|own| i64::try_from(own).ok()).unwrap_or(-1);
                Some(Compare::mod_revision(path, CompareOp::Equal, own))
            }
            Expect::Any => None,
        }
    }

    /// Which precondition of a refused transaction did not hold.
    fn conflict(&self, transaction: &Transaction, response: &TxnResponse) -> CommitError {
        for (op, found) in transaction.ops.iter().zip(got(response)) {
            let actual = found.first().map(|kv| self.served(kv.mod_revision()));
            if !op.expect().holds(actual) {
                return CommitError::Conflict { key: op.key().clone(), actual };
            }
        }
        let reason = "it refused a transaction whose preconditions hold".to_owned();
        CommitError::Unavailable(StorageError::Stopped { reason })
    }

    fn entry(&self, kv: &KeyValue) -> Result<Entry, StorageError> {
        Ok(Entry {
            key: decode(kv.key())?,
            revision: self.served(kv.mod_revision()),
            value: kv.value().to_vec().into(),
        })
    }
}

#[async_trait]
impl Storage for EtcdStorage {
    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        transaction.check()?;
        let compares: Vec<_> = transaction.ops.iter().filter_map(|op| self.compare(op)).collect();
        let mut writes: Vec<_> = transaction.ops.iter().map(write).collect();
        writes.push(TxnOp::put(HEAD, "", None));
        let keys_only = Some(GetOptions::new().with_keys_only());
        let look: Vec<_> =
            transaction.ops.iter().map(|op| TxnOp::get(path(op.key()), keys_only.clone())).collect();
        let request = Txn::new().when(compares).and_then(writes).or_else(look);
        match tokio::time::timeout(TIMEOUT, self.kv().txn(request)).await {
            Ok(Ok(response)) if response.succeeded() => {
                Ok(self.served(response.header().map_or(0, etcd_client::ResponseHeader::revision)))
            }
            Ok(Ok(response)) => Err(self.conflict(&transaction, &response)),
            Ok(Err(error)) if refused(&error) => Err(CommitError::Unavailable(etcd("committing")(error))),
            Ok(Err(error)) => Err(CommitError::OutcomeUnknown(etcd("committing")(error))),
            Err(_elapsed) => Err(CommitError::OutcomeUnknown(silent("committing"))),
        }
    }

    async fn revision(&self) -> Result<Revision, StorageError> {
        Ok(self.served(self.head().await?.0))
    }

    async fn scan(&self) -> Result<Snapshot, StorageError> {
        let (head, at) = self.head().await?;
        let mut entries = Vec::new();
        let end = prefix_end(OBJECTS);
        let mut from = OBJECTS.as_bytes().to_vec();
        loop {
            let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE).with_revision(at);
            let page = answer("reading a page of objects", self.kv().get(from, Some(options))).await?;
            for kv in page.kvs() {
                entries.push(self.entry(kv)?);
            }
            match page.kvs().last().filter(|_| page.more()) {
                Some(last) => from = [last.key(), b"\0"].concat(),
                None => break,
            }
        }
        Ok(Snapshot { revision: self.served(head), entries })
    }

    async fn tail(&self, after: Revision) -> Result<Tail, TailError> {
        watch::tail(self, after).await
    }

    async fn history(&self, after: Revision, through: Revision) -> Result<Vec<History>, TailError> {
        watch::history(self, after, through).await
    }

    async fn compact(&self, through: Revision) -> Result<(), StorageError> {
        let (head, _) = self.head().await?;
        match self.own(through).min(head) {
            0 => Ok(()),
            own => self.compact_own(own).await,
        }
    }

    async fn campaign(&self, role: &str, identity: &str) -> Result<Leadership, StorageError> {
        leader::campaign(self.client.clone(), self.lease, role, identity).await
    }
}

impl std::fmt::Debug for EtcdStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdStorage").field("offset", &self.offset).finish_non_exhaustive()
    }
}

fn path(key: &Key) -> String {
    format!("{OBJECTS}{}", key.encode())
}

fn decode(path: &[u8]) -> Result<Key, StorageError> {
    let text = String::from_utf8_lossy(path);
    let key = text.strip_prefix(OBJECTS).map(Key::decode);
    key.and_then(Result::ok).ok_or_else(|| StorageError::Corrupt { what: format!("the key {text}") })
}

fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn write(op: &Op) -> TxnOp {
    match op {
        Op::Put { key, value, .. } => TxnOp::put(path(key), value.to_vec(), None),
        Op::Delete { key, .. } => TxnOp::delete(path(key), None),
    }
}

/// What the reads of a transaction found, in order.
fn got(response: &TxnResponse) -> Vec<Vec<KeyValue>> {
    let found = response.op_responses().into_iter().map(|response| match response {
        TxnOpResponse::Get(mut get) => get.take_kvs(),
        _ => Vec::new(),
    });
    found.collect()
}

/// Whether an error means that nothing was written.
fn refused(error: &Error) -> bool {
    let Error::GRpcStatus(status) = error else { return false };
    matches!(
        status.code(),
        Code::InvalidArgument | Code::ResourceExhausted | Code::PermissionDenied | Code::Unauthenticated
    )
}

/// An error of etcd, with what was being done.
fn etcd(action: &'static str) -> impl Fn(Error) -> StorageError {
    move |error| StorageError::Etcd { action, source: Box::new(error) }
}

fn silent(action: &'static str) -> StorageError {
    let seconds = TIMEOUT.as_secs();
    StorageError::Stopped { reason: format!("etcd did not answer within {seconds} s at {action}") }
}

/// Waits for an answer, not for ever.
async fn answer<T>(
    action: &'static str,
    request: impl Future<Output = Result<T, Error>>,
) -> Result<T, StorageError> {
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(result) => result.map_err(etcd(action)),
        Err(_elapsed) => Err(silent(action)),
    }
}
