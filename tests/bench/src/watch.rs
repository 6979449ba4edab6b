//! Watch events a CPU second: the watch cache beside a naive server that encodes each event for each watcher.
//!
//! Both follow the same store in memory and hand the same bytes to the same number of tasks through bounded queues;
//! an event counts when a watcher holds its finished line.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};
use skep_storage::{
    Cache, CacheConfig, Expect, Key, MemoryStorage, ResourceId, Revision, Storage, Transaction, WatchItem,
    no_attributes,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cpu;
use crate::report::{Goal, Peer, Report};

/// Events written before waiting until all watchers have them.
const BURST: u64 = 50;
const QUEUE: usize = 1024;

/// Options of the benchmark.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Deliveries (events times watchers) of each measurement.
    #[arg(long, default_value_t = 400_000)]
    deliveries: u64,
    /// Bytes of an object, about.
    #[arg(long, default_value_t = 3000)]
    bytes: usize,
}

/// Runs the benchmark.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut report = Report::new("watch");
    for (watchers, goal) in [(1, 1.0), (100, 3.0), (1000, 3.0)] {
        let events = (args.deliveries / watchers).clamp(BURST, 20_000);
        let peers = measure(Server::Naive, watchers, events, args.bytes)?;
        // CPU time is counted in hundredths of a second: the faster side needs more to do.
        let ours = measure(Server::Cache, watchers, events * 10, args.bytes)?;
        let plural = if watchers == 1 { "1 watcher".to_owned() } else { format!("{watchers} watchers") };
        let peer = Peer { name: "encode per watcher", value: peers };
        report.add(format!("events a CPU second, {plural}"), ours, "1/s", peer, Goal::AtLeast(goal));
    }
    report.finish()
}

#[derive(Clone, Copy, Debug)]
enum Server {
    Cache,
    Naive,
}

/// Deliveries a CPU second, on a runtime of its own so that nothing of one server is left for the other.
fn measure(server: Server, watchers: u64, events: u64, bytes: usize) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let used = runtime.block_on(async {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        match server {
            Server::Cache => cached(storage, watchers, events, bytes).await,
            Server::Naive => naive(storage, watchers, events, bytes).await,
        }
    })?;
    Ok((watchers * events) as f64 / used.as_secs_f64().max(0.01))
}

/// A task that counts lines and reports each that it has.
type Watching = Vec<JoinHandle<usize>>;

async fn cached(storage: Arc<dyn Storage>, watchers: u64, events: u64, bytes: usize) -> Result<Duration> {
    let cache = Cache::open(Arc::clone(&storage), no_attributes(), CacheConfig::default()).await?;
    let (seen, counted) = mpsc::channel(QUEUE);
    let mut tasks = Watching::new();
    for _ in 0..watchers {
        let mut watcher = cache.watch(&pods()?, None, cache.revision())?;
        let seen = seen.clone();
        tasks.push(tokio::spawn(async move {
            let (mut length, mut count) = (0, 0);
            while let Some(item) = watcher.next().await {
                let WatchItem::Event(event) = item else { continue };
                length += event.frame().len();
                count += 1;
                if count % BURST == 0 && seen.send(()).await.is_err() {
                    break;
                }
            }
            length
        }));
    }
    write(&*storage, watchers, events, bytes, counted, tasks).await
}

async fn naive(storage: Arc<dyn Storage>, watchers: u64, events: u64, bytes: usize) -> Result<Duration> {
    let (seen, counted) = mpsc::channel(QUEUE);
    let mut queues = Vec::new();
    let mut tasks = Watching::new();
    for _ in 0..watchers {
        let (queue, mut waiting) = mpsc::channel::<(Revision, Arc<Value>)>(QUEUE);
        queues.push(queue);
        let seen = seen.clone();
        tasks.push(tokio::spawn(async move {
            let (mut length, mut count) = (0, 0);
            while let Some((revision, object)) = waiting.recv().await {
                length += encode(revision, &object).len();
                count += 1;
                if count % BURST == 0 && seen.send(()).await.is_err() {
                    break;
                }
            }
            length
        }));
    }
    let mut tail = storage.tail(storage.revision().await?).await?;
    let server = tokio::spawn(async move {
        while let Some(Ok(batch)) = tail.next().await {
            for change in &batch.changes {
                let parsed = change.value.as_deref().map(serde_json::from_slice);
                let Some(Ok(object)) = parsed else { continue };
                let object = Arc::new(object);
                for queue in &queues {
                    // A watcher that has ended is not missed.
                    let _ = queue.send((batch.revision, Arc::clone(&object))).await;
                }
            }
        }
    });
    let used = write(&*storage, watchers, events, bytes, counted, tasks).await;
    server.abort();
    used
}

/// What a server without a shared encoding does for each watcher.
fn encode(revision: Revision, object: &Value) -> Bytes {
    let mut object = object.clone();
    object["metadata"]["resourceVersion"] = json!(revision.to_string());
    let mut line = serde_json::to_vec(&json!({ "type": "MODIFIED", "object": object })).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

/// Writes in bursts, each after all watchers have the one before; returns the CPU time used.
async fn write(
    storage: &dyn Storage,
    watchers: u64,
    events: u64,
    bytes: usize,
    mut counted: mpsc::Receiver<()>,
    tasks: Watching,
) -> Result<Duration> {
    let pods = pods()?;
    let objects = (0..BURST).map(|event| {
        let key = Key::new(pods.clone(), Some("default"), &format!("pod-{event}"))?;
        Ok((key, Bytes::from(pod(event, bytes)?)))
    });
    let objects = objects.collect::<Result<Vec<_>>>()?;
    let before = cpu::of_self()?;
    for _ in 0..events / BURST {
        for (key, value) in &objects {
            storage.commit(Transaction::put(key.clone(), value.clone(), Expect::Any)).await?;
        }
        for _ in 0..watchers {
            counted.recv().await.context("the watchers have ended early")?;
        }
    }
    let used = cpu::of_self()?.saturating_sub(before);
    for task in tasks {
        task.abort();
    }
    Ok(used)
}

fn pods() -> Result<ResourceId> {
    Ok(ResourceId::new("", "pods")?)
}

/// A pod of about this size, in the stored form.
fn pod(number: u64, bytes: usize) -> Result<Vec<u8>> {
    let container = |n: usize| {
        json!({
            "name": format!("container-{n}"),
            "image": "registry.example.org/app:1.2.3",
            "env": [{ "name": "NUMBER", "value": n.to_string() }],
            "resources": { "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "100m", "memory": "64Mi" } },
            "volumeMounts": [{ "name": "token", "mountPath": "/var/run/secrets", "readOnly": true }],
        })
    };
    let containers: Vec<_> = (0..(bytes / 280).max(1)).map(container).collect();
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "pod", "namespace": "default", "generation": number, "labels": { "app": "bench" } },
        "spec": { "nodeName": "node-1", "containers": containers },
    });
    serde_json::to_vec(&pod).context("cannot encode a pod")
}
