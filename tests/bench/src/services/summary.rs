//! From samples to the rows of the report.

use super::{
    Contestant,
    samples::{Pattern, Samples, Series, added, median, ratio},
};
use crate::report::{Goal, Peer, Report};

/// Our share of what the nftables rules add.
const ADDED: f64 = 0.25;
/// How much more a connection may take with many Services than with few.
const FLAT: f64 = 1.05;
/// Exchanges on a balanced connection, beside those on a direct one.
const EXCHANGES: f64 = 0.99;

/// What was measured at one size.
pub(super) struct Size<'a> {
    /// How many Services.
    pub(super) services: u32,
    /// Whether the iptables rules could be loaded in time.
    pub(super) iptables: bool,
    /// By contestant in their order.
    pub(super) samples: &'a [Samples],
}

impl Size<'_> {
    fn of(&self, who: Contestant, pattern: Pattern) -> Option<&Series> {
        find(self.samples, who).map(|samples| samples.of(pattern))
    }
}

fn find(samples: &[Samples], who: Contestant) -> Option<&Samples> {
    samples.get(Contestant::ALL.iter().position(|one| *one == who)?)
}

/// A way through a Service: ours with and without it, and the peers' likewise.
struct Way {
    name: &'static str,
    ours: Contestant,
    ours_without: Contestant,
    nft: Contestant,
    ipt: Contestant,
    without: Contestant,
}

const WAYS: [Way; 2] = [
    Way {
        name: "ClusterIP",
        ours: Contestant::OursService,
        ours_without: Contestant::OursDirect,
        nft: Contestant::NftService,
        ipt: Contestant::IptService,
        without: Contestant::StackDirect,
    },
    Way {
        name: "NodePort",
        ours: Contestant::OursNodePort,
        ours_without: Contestant::StackOutside,
        nft: Contestant::NftNodePort,
        ipt: Contestant::IptNodePort,
        without: Contestant::StackOutside,
    },
];

/// Adds the rows of one size; `first` are the samples of the smallest one.
pub(super) fn report(size: &Size<'_>, first: Option<&Vec<Samples>>, report: &mut Report) {
    for way in &WAYS {
        connections(size, way, report);
        latency(size, way, report);
        exchanges(size, way, report);
        if let Some(first) = first {
            flatness(size, first, way, report);
        }
    }
}

fn connections(size: &Size<'_>, way: &Way, report: &mut Report) {
    let services = size.services;
    for (pattern, clients) in [(Pattern::Connect1, "1 client"), (Pattern::Connect32, "32 clients")] {
        let (Some(ours), Some(own), Some(nft), Some(ipt), Some(none)) = (
            size.of(way.ours, pattern),
            size.of(way.ours_without, pattern),
            size.of(way.nft, pattern),
            size.of(way.ipt, pattern),
            size.of(way.without, pattern),
        ) else {
            return;
        };
        let rate = |series: &Series| 1e9 / median(&series.wall).max(1.0);
        let name = format!("{} of {services}, {clients}", way.name);
        let mut row = |what: &str, value: f64, unit: &str, peer: (&str, f64), goal: Goal| {
            let peer = Peer { name: peer.0, value: peer.1 };
            report.add(format!("{name}: {what}"), value, unit, peer, goal);
        };
        row("new connections", rate(ours), "1/s", ("no load balancing", rate(none)), Goal::None);
        row("new connections", rate(ours), "1/s", ("nftables", rate(nft)), Goal::None);
        if size.iptables {
            row("new connections", rate(ours), "1/s", ("iptables", rate(ipt)), Goal::None);
        } else {
            row("new connections", rate(ours), "1/s", ("iptables (took too long to load)", 0.0), Goal::None);
        }
        let add = |with: &[f64], without: &[f64]| added(with, without) / 1000.0;
        let (mine, theirs) = (add(&ours.wall, &own.wall), add(&nft.wall, &none.wall));
        row("adds to each, wall", mine, "us", ("nftables", theirs), measurable(theirs));
        let (mine, theirs) = (add(&ours.cpu, &own.cpu), add(&nft.cpu, &none.cpu));
        row("adds to each, processor", mine, "us", ("nftables", theirs), measurable(theirs));
        let cpu = |series: &Series| median(&series.cpu) / 1000.0;
        row("processor time of each", cpu(ours), "us", ("nftables", cpu(nft)), Goal::None);
    }
}

/// The goal, where the peer adds more than the noise.
fn measurable(added: f64) -> Goal {
    if added > 0.5 { Goal::AtMost(ADDED) } else { Goal::None }
}

/// The first packet's way there and back is the time that a connection takes to open.
fn latency(size: &Size<'_>, way: &Way, report: &mut Report) {
    for share in [0.5, 0.99] {
        for (name, peer) in [("no load balancing", way.without), ("nftables", way.nft), ("iptables", way.ipt)]
        {
            let of =
                |who| size.of(who, Pattern::Connect1).map_or(0.0, |series| series.opened(share) / 1000.0);
            if of(peer) > 0.0 {
                let metric =
                    format!("{} of {}: first packet, p{:.0}", way.name, size.services, share * 100.0);
                report.add(metric, of(way.ours), "us", Peer { name, value: of(peer) }, Goal::None);
            }
        }
    }
}

fn exchanges(size: &Size<'_>, way: &Way, report: &mut Report) {
    let pattern = Pattern::Exchange;
    let (Some(ours), Some(nft)) = (size.of(way.ours, pattern), size.of(way.nft, pattern)) else { return };
    let Some(own) = size.of(way.ours_without, pattern) else { return };
    let rate = |series: &Series| 1e9 / median(&series.wall).max(1.0);
    // Ours over the direct connection's, as the median of the rounds' ratios.
    let kept = ratio(&own.wall, &ours.wall);
    let goal = if way.ours == Contestant::OursService { Goal::AtLeast(EXCHANGES) } else { Goal::None };
    let name = format!("{} of {}: exchanges on a connection", way.name, size.services);
    let peer = Peer { name: "no load balancing", value: rate(ours) / kept.max(0.01) };
    report.add(name.clone(), rate(ours), "1/s", peer, goal);
    report.add(name, rate(ours), "1/s", Peer { name: "nftables", value: rate(nft) }, Goal::None);
}

/// A connection's time over that of a direct one in the same rounds, now and with the fewest Services.
fn flatness(size: &Size<'_>, first: &[Samples], way: &Way, report: &mut Report) {
    let pattern = Pattern::Connect1;
    let relative = |samples: &[Samples]| {
        let (ours, own) =
            (find(samples, way.ours)?.of(pattern), find(samples, way.ours_without)?.of(pattern));
        Some(ratio(&ours.wall, &own.wall))
    };
    if let (Some(now), Some(before)) = (relative(size.samples), relative(first)) {
        let metric = format!("{} of {}: a connection's time over a direct one's", way.name, size.services);
        report.add(metric, now, "x", Peer { name: "with the fewest", value: before }, Goal::AtMost(FLAT));
    }
}
