//! What the agent does about Services: from objects, as the API server sends them, to the kernel's maps.
//!
//! Drives the load balancer and the tables that the daemon writes, over real maps. A cold start runs in a process of its
//! own, whose memory is then that of the agent's state and nothing else's; the client library's own copies of the
//! objects are not part of it, for the agent keeps none.

mod objects;

use std::{
    process::Command,
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use skep_loadbalancer::{Context, LoadBalancer, Service, Settings, Slice};
use skep_test_programs::Bench;

use self::daemon::tables::ServiceTables;
use crate::report::{Goal, Peer, Report};

/// The daemon's own tables; a binary cannot be depended upon.
#[path = "../../../../agent/daemon/src"]
#[allow(dead_code, unused_imports, reason = "the daemon uses the rest")]
mod daemon {
    pub(super) mod tables;
}

const MIB: f64 = 1024.0 * 1024.0;
/// A cold start with 30,000 Services, seconds.
const COLD_START: f64 = 2.0;
/// Memory that it may take, MiB.
const MEMORY: f64 = 60.0;
/// From a slice's change to the map, milliseconds.
const CHANGE: f64 = 50.0;
/// Services that the daemon computes at once.
const ROUND: usize = 4096;
/// Most events that the engine takes at once.
const BATCH: usize = 256;

/// Options of the cold start.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many Services.
    #[arg(long)]
    services: u32,
}

/// What a cold start took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct ColdStart {
    /// From the first object to the last row in the maps; decoding the objects included.
    seconds: f64,
    /// Of it: decoding.
    decoding: f64,
    /// Memory of the whole process afterwards, bytes.
    memory: u64,
}

/// Measures and reports.
pub(super) fn measure(quick: bool, report: &mut Report) -> Result<()> {
    let (services, churned) = if quick { (1000, 500) } else { (30_000, 10_000) };
    let started = cold_start_apart(services)?;
    let budget = |value| Peer { name: "budget", value };
    let name = format!("agent, cold start with {services} Services");
    report.add(name.clone(), started.seconds, "s", budget(COLD_START), Goal::AtMost(1.0));
    let decoding = Peer { name: "of it decoding JSON", value: started.decoding };
    report.add(name.clone(), started.seconds, "s", decoding, Goal::None);
    // The same process with hardly a Service: programs, their objects, and what the kernel's library sets up.
    let empty = cold_start_apart(1)?;
    let memory = started.memory.saturating_sub(empty.memory) as f64 / MIB;
    let whole = Peer { name: "of the whole process", value: started.memory as f64 / MIB };
    report.add(format!("{name}: memory"), memory, "MiB", whole, Goal::None);
    report.add(format!("{name}: memory"), memory, "MiB", budget(MEMORY), Goal::AtMost(1.0));

    let seconds = if quick { 2 } else { 15 };
    let mut latencies = churn(churned, Duration::from_secs(seconds))?;
    latencies.sort_unstable();
    for (share, goal) in [(0.5, Goal::None), (0.99, Goal::AtMost(1.0))] {
        let at = (latencies.len() as f64 * share) as usize;
        let value = latencies.get(at).context("no changes")?.as_secs_f64() * 1000.0;
        let metric = format!(
            "agent, slice to map, {churned} Services, {} endpoints, {} changes/s, p{:.0}",
            churned * objects::ENDPOINTS,
            CHANGES,
            share * 100.0
        );
        report.add(metric, value, "ms", budget(CHANGE), goal);
    }
    Ok(())
}

/// Runs [`cold_start`] in another process.
fn cold_start_apart(services: u32) -> Result<ColdStart> {
    let output = Command::new(std::env::current_exe()?)
        .args(["services-cold-start", "--services", &services.to_string()])
        .output()?;
    ensure!(output.status.success(), "the cold start failed: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("the cold start said something else")
}

/// The process of its own: prints what it took as JSON.
pub(crate) fn cold_start(args: &Args) -> Result<()> {
    let bench = Bench::new()?;
    let mut agent = Agent::new(&bench);
    let (mut decoding, mut spent) = (Duration::ZERO, Duration::ZERO);
    for number in 0..args.services {
        let (service, slice) = (objects::service(number), objects::slice(number, 1, 0));
        let began = Instant::now();
        let (service, slice) = (decode_service(&service)?, decode_slice(&slice)?);
        decoding += began.elapsed();
        agent.balancer.upsert_service(service);
        agent.balancer.upsert_slice(slice);
        spent += began.elapsed();
    }
    let began = Instant::now();
    agent.settle()?;
    agent.tables.complete();
    agent.settle()?;
    spent += began.elapsed();
    let rows = bench.datapath().tables().frontends.entries()?.len();
    ensure!(rows >= args.services as usize, "{rows} frontends in the map");
    let (seconds, decoding) = (spent.as_secs_f64(), decoding.as_secs_f64());
    let taken = ColdStart { seconds, decoding, memory: resident()? };
    serde_json::to_writer(std::io::stdout(), &taken)?;
    Ok(())
}

/// The agent's state about Services.
struct Agent {
    balancer: LoadBalancer,
    tables: ServiceTables,
}

impl Agent {
    fn new(bench: &Bench) -> Self {
        let settings = Settings {
            service_ranges: "10.96.0.0/16".parse().into_iter().collect(),
            pod_ranges: "10.240.0.0/12".parse().into_iter().collect(),
            ..Settings::default()
        };
        let context = Context { node: "here".to_owned(), settings, ..Context::default() };
        Self { balancer: LoadBalancer::new(context), tables: ServiceTables::new(bench.datapath().tables()) }
    }

    /// What the engine does after a batch of events.
    fn settle(&mut self) -> Result<()> {
        loop {
            let changes = self.balancer.refresh_some(ROUND);
            let retry = self.tables.apply(&changes, Instant::now());
            ensure!(retry.is_none(), "a row could not be written");
            if !self.balancer.is_dirty() {
                return Ok(());
            }
        }
    }
}

fn decode_service(json: &str) -> Result<Service> {
    Ok(Service::try_from(&serde_json::from_str::<core::Service>(json)?)?)
}

fn decode_slice(json: &str) -> Result<Slice> {
    Ok(Slice::try_from(&serde_json::from_str::<discovery::EndpointSlice>(json)?)?)
}

/// Changes a second.
const CHANGES: u32 = 500;

/// Changes slices at a steady rate, while what is changed is written; returns how long each took to be in the map.
fn churn(services: u32, time: Duration) -> Result<Vec<Duration>> {
    let bench = Bench::new()?;
    let mut agent = Agent::new(&bench);
    for number in 0..services {
        agent.balancer.upsert_service(decode_service(&objects::service(number))?);
        agent.balancer.upsert_slice(decode_slice(&objects::slice(number, objects::ENDPOINTS, 0))?);
    }
    agent.settle()?;
    agent.tables.complete();
    agent.settle()?;
    let (sender, events) = mpsc::sync_channel(BATCH * 4);
    let source = std::thread::spawn(move || -> Result<()> {
        let mut random = StdRng::seed_from_u64(7);
        let began = Instant::now();
        for change in 1.. {
            let due = Duration::from_secs(1) * change / CHANGES;
            if due > time {
                break;
            }
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            // A pod takes the place of another: what a rolling update does all the time.
            let json = objects::slice(random.random_range(0..services), objects::ENDPOINTS, change);
            if sender.send((Instant::now(), json)).is_err() {
                break;
            }
        }
        Ok(())
    });
    let mut latencies = Vec::new();
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(first) = events.recv() {
        batch.push(first);
        batch.extend(events.try_iter().take(BATCH - 1));
        for (_, json) in &batch {
            agent.balancer.upsert_slice(decode_slice(json)?);
        }
        agent.settle()?;
        let now = Instant::now();
        latencies.extend(batch.drain(..).map(|(sent, _)| now - sent));
    }
    source.join().map_err(|_panic| anyhow::anyhow!("the source of changes panicked"))??;
    check(&bench, services)?;
    Ok(latencies)
}

/// As many slots in the map as there are endpoints.
fn check(bench: &Bench, services: u32) -> Result<()> {
    let slots = bench.datapath().tables().backends.entries()?.len();
    let wanted = (services * objects::ENDPOINTS) as usize;
    ensure!(slots == wanted, "{slots} slots in the map, not {wanted}");
    Ok(())
}

/// Memory of this process that no other shares, bytes.
fn resident() -> Result<u64> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let field = |name: &str| -> Option<u64> {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let kilobytes = field("Private_Dirty:").context("smaps_rollup is not understood")?;
    Ok(kilobytes * 1024)
}
