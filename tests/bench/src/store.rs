//! Durable writes a second: the embedded store beside a real etcd on the same disk.
//!
//! Both do what an API server asks of a store: replace an object under the precondition that it has not changed.
//! etcd is asked directly, with the transaction a kube-apiserver sends, not through our own adapter. The two take
//! turns in short rounds, so that a slow moment of the disk meets both.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use etcd_client::{Client, Compare, CompareOp, Txn, TxnOp};
use skep_storage::{
    EmbeddedConfig, EmbeddedStorage, Expect, Key, ResourceId, Revision, Storage, Transaction,
};

use crate::cpu;
use crate::etcd_server::EtcdServer;
use crate::report::{self, Goal, Peer, Report};

/// Objects that each client replaces in turn.
const OBJECTS: usize = 10;

/// Options of the benchmark.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds of each round.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Rounds of each store for each number of clients.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Bytes of an object.
    #[arg(long, default_value_t = 1500)]
    bytes: usize,
}

/// What rounds have summed up to.
#[derive(Clone, Debug, Default)]
struct Tally {
    writes: u64,
    wall: Duration,
    cpu: Duration,
    latencies: Vec<Duration>,
}

impl Tally {
    fn per_second(&self) -> f64 {
        self.writes as f64 / self.wall.as_secs_f64()
    }

    fn per_cpu_second(&self) -> f64 {
        self.writes as f64 / self.cpu.as_secs_f64().max(0.01)
    }

    /// Milliseconds that this share of the writes stayed below.
    fn latency(&mut self, share: f64) -> f64 {
        self.latencies.sort_unstable();
        let at = ((self.latencies.len() as f64 * share) as usize).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
    }

    fn add(&mut self, other: Self) {
        self.writes += other.writes;
        self.wall += other.wall;
        self.cpu += other.cpu;
        self.latencies.extend(other.latencies);
    }
}

/// Runs the benchmark.
pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(compare(args))
}

async fn compare(args: &Args) -> Result<()> {
    let directory = tempfile::Builder::new().prefix("store-").tempdir_in(report::directory()?)?;
    let server = EtcdServer::start(directory.path())?;
    let etcd = Etcd::connect(&server).await?;
    let embedded = Embedded::open(directory.path())?;
    let mut report = Report::new("store");
    for (clients, goal) in [(1, 1.0), (100, 2.0)] {
        let (mut ours, mut peers) = (Tally::default(), Tally::default());
        for _ in 0..args.rounds {
            peers.add(round(&etcd, clients, args).await?);
            ours.add(round(&embedded, clients, args).await?);
        }
        let plural = if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") };
        let peer = |value| Peer { name: "etcd", value };
        let rate = peer(peers.per_second());
        report.add(format!("durable writes, {plural}"), ours.per_second(), "1/s", rate, Goal::AtLeast(goal));
        for share in [0.5, 0.99] {
            let name = format!("latency p{:.0}, {plural}", share * 100.0);
            report.add(name, ours.latency(share), "ms", peer(peers.latency(share)), Goal::None);
        }
        let cost = peer(peers.per_cpu_second());
        report.add(format!("writes a CPU second, {plural}"), ours.per_cpu_second(), "1/s", cost, Goal::None);
    }
    report.finish()
}

/// A store as the benchmark sees it.
trait Subject: Clone + Send + Sync + 'static {
    /// Replaces one object, last written at `last` (zero: not yet); returns the new revision.
    fn replace(
        &self,
        client: usize,
        object: usize,
        value: Vec<u8>,
        last: u64,
    ) -> impl Future<Output = Result<u64>> + Send;

    /// CPU time of the store and its client.
    fn cpu(&self) -> Result<Duration>;
}

async fn round<S: Subject>(subject: &S, clients: usize, args: &Args) -> Result<Tally> {
    let (began, cpu) = (Instant::now(), subject.cpu()?);
    let end = began + Duration::from_secs(args.seconds);
    let client = |number: usize| write(subject.clone(), number, args.bytes, end);
    let clients: Vec<_> = (0..clients).map(|number| tokio::spawn(client(number))).collect();
    let mut tally = Tally::default();
    for client in clients {
        tally.add(client.await??);
    }
    tally.wall = began.elapsed();
    tally.cpu = subject.cpu()?.saturating_sub(cpu);
    Ok(tally)
}

async fn write<S: Subject>(subject: S, client: usize, bytes: usize, end: Instant) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut last = [0; OBJECTS];
    // Objects of earlier rounds are there already: a client number of its own for each round.
    let client = client + 1000 * rand::random_range(1..1_000_000);
    while Instant::now() < end {
        for (object, last) in last.iter_mut().enumerate() {
            let value = value(bytes, tally.writes);
            let began = Instant::now();
            *last = subject.replace(client, object, value, *last).await?;
            tally.latencies.push(began.elapsed());
            tally.writes += 1;
        }
    }
    Ok(tally)
}

/// An object of about this size.
fn value(bytes: usize, number: u64) -> Vec<u8> {
    let head = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"bench","generation":{number}}},"data":{{"x":""#
    );
    let mut value = head.into_bytes();
    value.resize(bytes.max(value.len()), b'x');
    value.extend_from_slice(b"\"}}");
    value
}

#[derive(Clone)]
struct Embedded(Arc<EmbeddedStorage>);

impl Embedded {
    fn open(directory: &Path) -> Result<Self> {
        let config = EmbeddedConfig::new(directory.join("store.redb"));
        Ok(Self(Arc::new(EmbeddedStorage::open(&config)?)))
    }
}

impl Subject for Embedded {
    async fn replace(&self, client: usize, object: usize, value: Vec<u8>, last: u64) -> Result<u64> {
        let resource = ResourceId::new("", "configmaps")?;
        let key = Key::new(resource, Some(&format!("client-{client}")), &format!("object-{object}"))?;
        let expect = if last == 0 { Expect::Absent } else { Expect::At(Revision(last)) };
        Ok(self.0.commit(Transaction::put(key, value, expect)).await?.0)
    }

    fn cpu(&self) -> Result<Duration> {
        cpu::of_self()
    }
}

#[derive(Clone)]
struct Etcd {
    client: Client,
    pid: u32,
}

impl Etcd {
    async fn connect(server: &EtcdServer) -> Result<Self> {
        let client = Client::connect([server.endpoint()], None).await.context("cannot connect to etcd")?;
        Ok(Self { client, pid: server.pid() })
    }
}

impl Subject for Etcd {
    async fn replace(&self, client: usize, object: usize, value: Vec<u8>, last: u64) -> Result<u64> {
        let key = format!("/registry/configmaps/client-{client}/object-{object}");
        let unchanged = Compare::mod_revision(key.as_str(), CompareOp::Equal, i64::try_from(last)?);
        let put = TxnOp::put(key.as_str(), value, None);
        let otherwise = TxnOp::get(key.as_str(), None);
        let request = Txn::new().when(vec![unchanged]).and_then(vec![put]).or_else(vec![otherwise]);
        let response = self.client.kv_client().txn(request).await?;
        anyhow::ensure!(response.succeeded(), "etcd refused a write that should have succeeded");
        let header = response.header().context("etcd answered without a header")?;
        Ok(u64::try_from(header.revision())?)
    }

    fn cpu(&self) -> Result<Duration> {
        Ok(cpu::of_self()? + cpu::of_process(self.pid)?)
    }
}
