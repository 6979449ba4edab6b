//! What load balancing adds to a connection, beside the rule sets of kube-proxy, with 10 to 30,000 Services installed.
//!
//! Four beds stand side by side: forwarding without any load balancing; the same with kube-proxy's nftables rules; with
//! its iptables rules; and ours. Clients ask through a Service's cluster address from a pod, and through its node
//! port from beyond the uplink. What counts is the difference to the same bed without a Service, in wall and
//! in processor time: for us that is our own data path between the same pods, for the rule sets the bare stack; through
//! a node port it is the bare stack for all. Slices of a fraction of a second alternate between all contestants.
//!
//! [`agent`] measures what the node's agent does about changes.

pub(crate) mod agent;
mod bed;
mod ours;
mod rules;
mod samples;
mod summary;
pub(crate) mod worker;

use std::{
    net::{SocketAddr, SocketAddrV4},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::report::{self, Report};
use bed::{Kernel, Rules};
use ours::Ours;
use samples::{Pattern, Samples};
use worker::{CLIENTS, Place, Worker};

/// Options.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Numbers of Services.
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000,30000")]
    sizes: Vec<u32>,
    /// Rounds at each size; fewer when time runs out.
    #[arg(long, default_value_t = 40)]
    rounds: usize,
    /// Milliseconds of a slice.
    #[arg(long, default_value_t = 60)]
    milliseconds: u64,
    /// Seconds that the rounds of one size may take.
    #[arg(long, default_value_t = 85)]
    seconds: u64,
    /// A few rounds with few Services, to see that it works.
    #[arg(long)]
    quick: bool,
    /// Only this part.
    #[arg(long, value_enum)]
    only: Option<Part>,
}

/// The parts of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Connections, through the kernel.
    Connections,
    /// Changes, through the agent's tables.
    Agent,
}

impl Args {
    fn wants(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }
}

/// Measures and reports.
pub(crate) fn run(args: &Args) -> Result<()> {
    bed::remove_stale()?;
    let mut report = Report::new("services");
    if args.wants(Part::Agent) {
        agent::measure(args.quick, &mut report)?;
    }
    let outcome = if args.wants(Part::Connections) { connections(args, &mut report) } else { Ok(()) };
    // What was measured before something went wrong is worth seeing.
    report.finish()?;
    outcome
}

/// Who asks whom through what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contestant {
    /// Our data path from pod to pod, no Service.
    OursDirect,
    /// Our socket balancing.
    OursService,
    /// The bare stack from pod to pod.
    StackDirect,
    /// The nftables rules.
    NftService,
    /// The iptables rules.
    IptService,
    /// The bare stack from outside to the pod.
    StackOutside,
    /// Our uplink program.
    OursNodePort,
    /// The nftables rules.
    NftNodePort,
    /// The iptables rules.
    IptNodePort,
}

impl Contestant {
    /// All, in the order of a round: those that are compared are neighbours.
    pub(super) const ALL: [Contestant; 9] = [
        Self::OursDirect,
        Self::OursService,
        Self::StackDirect,
        Self::NftService,
        Self::IptService,
        Self::StackOutside,
        Self::OursNodePort,
        Self::NftNodePort,
        Self::IptNodePort,
    ];

    fn to(self) -> SocketAddr {
        let direct = bed::backends().first().copied().unwrap_or(bed::FRONTEND);
        SocketAddr::V4(match self {
            Self::OursDirect | Self::StackDirect | Self::StackOutside => direct,
            Self::OursService | Self::NftService | Self::IptService => bed::FRONTEND,
            Self::OursNodePort | Self::NftNodePort | Self::IptNodePort => {
                SocketAddrV4::new(bed::NODE, bed::NODE_PORT)
            }
        })
    }
}

/// The beds, and a client of each contestant.
struct Beds {
    plain: Kernel,
    nft: Kernel,
    ipt: Kernel,
    ours: Ours,
    clients: Vec<Worker>,
}

impl Beds {
    fn new() -> Result<Self> {
        let plain = Kernel::new(Rules::None)?;
        let (nft, ipt) = (Kernel::new(Rules::Nftables)?, Kernel::new(Rules::Iptables)?);
        let mut beds = Self { plain, nft, ipt, ours: Ours::new()?, clients: Vec::new() };
        beds.clients = Contestant::ALL.map(|who| beds.client(who)).into_iter().collect::<Result<_>>()?;
        Ok(beds)
    }

    fn client(&self, who: Contestant) -> Result<Worker> {
        match who {
            Contestant::OursDirect => self.ours.pod_client(false),
            Contestant::OursService => self.ours.pod_client(true),
            Contestant::StackDirect => self.plain.pod_client(),
            Contestant::NftService => self.nft.pod_client(),
            Contestant::IptService => self.ipt.pod_client(),
            Contestant::StackOutside => self.plain.outside_client(),
            Contestant::OursNodePort => self.ours.outside_client(),
            Contestant::NftNodePort => self.nft.outside_client(),
            Contestant::IptNodePort => self.ipt.outside_client(),
        }
    }

    /// Installs so many Services everywhere; false when the iptables rules take too long.
    fn install(&mut self, services: u32) -> Result<bool> {
        let folder = tempfile::tempdir_in(report::directory()?)?;
        self.ours.install(services)?;
        let loaded = self.nft.install(services, folder.path())?;
        anyhow::ensure!(loaded, "nftables rules for {services} Services take too long to load");
        self.ipt.install(services, folder.path())
    }

    /// Puts clients and servers where a pattern wants them.
    fn pin(&self, pattern: Pattern) -> Result<()> {
        let place = if pattern == Pattern::Connect32 { Place::Any } else { Place::One };
        let servers = [self.plain.server(), self.nft.server(), self.ipt.server(), self.ours.server()];
        servers.into_iter().chain(&self.clients).try_for_each(|worker| worker.pin(place))
    }

    /// One slice of one contestant.
    fn measure(&mut self, at: usize, pattern: Pattern, time: Duration) -> Result<(worker::Counted, u64)> {
        let who = *Contestant::ALL.get(at).context("no such contestant")?;
        let server = match who {
            Contestant::OursDirect | Contestant::OursService | Contestant::OursNodePort => self.ours.server(),
            Contestant::StackDirect | Contestant::StackOutside => self.plain.server(),
            Contestant::NftService | Contestant::NftNodePort => self.nft.server(),
            Contestant::IptService | Contestant::IptNodePort => self.ipt.server(),
        };
        let client = self.clients.get_mut(at).context("no such client")?;
        let before = client.cpu()? + server.cpu()?;
        let counted = match pattern {
            Pattern::Connect1 => client.connect(who.to(), 1, time),
            Pattern::Connect32 => client.connect(who.to(), CLIENTS, time),
            Pattern::Exchange => client.exchange(who.to(), time),
        };
        let counted = counted.with_context(|| format!("{who:?}"))?;
        let used = (client.cpu()? + server.cpu()?).saturating_sub(before);
        Ok((counted, used))
    }
}

fn connections(args: &Args, report: &mut Report) -> Result<()> {
    let mut beds = Beds::new()?;
    let mut first = None;
    let sizes = if args.quick { &[10, 1000][..] } else { &args.sizes };
    for services in sizes {
        let iptables = beds.install(*services)?;
        bed::check_conntrack()?;
        let measured = rounds(&mut beds, args, iptables)?;
        let size = summary::Size { services: *services, iptables, samples: &measured };
        summary::report(&size, first.as_ref(), report);
        first.get_or_insert(measured);
    }
    beds.ours.check_no_drops()
}

/// All rounds at one size, by contestant in their order.
fn rounds(beds: &mut Beds, args: &Args, iptables: bool) -> Result<Vec<Samples>> {
    let time = Duration::from_millis(args.milliseconds);
    let rounds = if args.quick { 3 } else { args.rounds };
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let mut all = vec![Samples::default(); Contestant::ALL.len()];
    for round in 0..=rounds {
        for pattern in Pattern::ALL {
            beds.pin(pattern)?;
            for (at, who) in Contestant::ALL.iter().enumerate() {
                if !iptables && matches!(who, Contestant::IptService | Contestant::IptNodePort) {
                    continue;
                }
                let (counted, cpu) = beds.measure(at, pattern, time)?;
                // The first round warms caches and neighbour tables up.
                if let Some(samples) = all.get_mut(at).filter(|_| round > 0) {
                    samples.add(pattern, counted, cpu);
                }
            }
        }
        if round > 0 && Instant::now() > end {
            break;
        }
    }
    Ok(all)
}
