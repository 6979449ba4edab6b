//! Benchmarks, each beside a peer or a limit in the same run on the same machine.
//!
//! A benchmark prints a table of ratios and writes `target/bench/NAME.json`; see [`report`].

mod cpu;
#[path = "../../../controlplane/storage/tests/conformance/etcd_server.rs"]
mod etcd_server;
mod footprint;
mod net;
mod programs;
mod report;
mod services;
mod store;
mod watch;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Benchmarks.
#[derive(Debug, Parser)]
#[command(name = "skep-bench")]
struct Bench {
    #[command(subcommand)]
    name: Name,
}

#[derive(Debug, Subcommand)]
enum Name {
    /// Memory of an idle cluster, by process.
    Footprint(footprint::Args),
    /// Request/response between pods of two nodes, beside the kernel alone.
    Net(net::Args),
    /// Nanoseconds a packet spends in the eBPF programs, by path.
    Programs(programs::Args),
    /// What load balancing adds to a connection, beside kube-proxy's rule sets.
    Services(services::Args),
    /// A part of `services` with a process and a namespace of its own.
    #[command(hide = true)]
    ServicesWorker(services::worker::Args),
    /// The agent's part of `services`, in a process whose memory is measured.
    #[command(hide = true)]
    ServicesColdStart(services::agent::Args),
    /// Durable writes a second: the embedded store beside etcd on the same disk.
    Store(store::Args),
    /// Watch events a CPU second: the watch cache beside encoding for each watcher.
    Watch(watch::Args),
}

fn main() -> Result<()> {
    match Bench::parse().name {
        Name::Footprint(args) => footprint::run(&args),
        Name::Net(args) => net::run(&args),
        Name::Programs(args) => programs::run(&args),
        Name::Services(args) => services::run(&args),
        Name::ServicesWorker(args) => services::worker::run(&args),
        Name::ServicesColdStart(args) => services::agent::cold_start(&args),
        Name::Store(args) => store::run(&args),
        Name::Watch(args) => watch::run(&args),
    }
}
