//! Who announces an address: one Lease an address, and this node's part in it. Pure: events in, commands out.
//!
//! - A Lease that is free is taken after a delay that depends on address and node, so that addresses spread over the
//!   nodes and two nodes rarely try at once.
//! - The holder renews. While the API server cannot be reached it goes on announcing, since nobody else can take the
//!   Lease either: it yields when it learns of another holder, from the API or from that holder's claim on the link.
//! - A node that is no candidate any more gives the Lease back at once; a process that ends leaves a short while for
//!   its successor on the same node.

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    net::IpAddr,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;

/// The times of the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    /// How long a Lease holds without being renewed.
    pub(crate) lease: Duration,
    /// How often the holder renews.
    pub(crate) renew: Duration,
    /// How long to wait after a failure.
    pub(crate) retry: Duration,
    /// The longest delay before a free Lease is taken.
    pub(crate) spread: Duration,
    /// How long nobody else takes the Leases of a process that ended.
    pub(crate) handover: Duration,
    /// How long a Lease of an address that no Service has stays.
    pub(crate) leftover: Duration,
}

/// A Lease as it was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// Its version.
    pub(crate) version: String,
    /// Who holds it; empty when nobody does.
    pub(crate) holder: String,
    /// How long it holds.
    pub(crate) duration: Duration,
    /// How often the holder changed.
    pub(crate) transitions: i32,
    /// Since when the holder has it.
    pub(crate) acquired: Option<Timestamp>,
}

/// What to do with an address's Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Take or renew it, from this state of it; create it when there is none.
    Claim(IpAddr, Option<Observed>),
    /// Let it end after this time; at once when zero.
    Release(IpAddr, Observed, Duration),
    /// Remove it: no Service has the address.
    Delete(IpAddr, Observed),
}

impl Command {
    /// The address it is about.
    pub(crate) fn address(&self) -> IpAddr {
        match self {
            Command::Claim(address, _) | Command::Release(address, ..) | Command::Delete(address, _) => {
                *address
            }
        }
    }
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The Lease is so now.
    Written(Observed),
    /// There is no such Lease.
    Gone,
    /// Another was faster; the watch will tell.
    Outrun,
    /// It is not known.
    Failed,
}

/// What to do about somebody else's claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// The address is not ours.
    Ignore,
    /// The Lease is ours: claim the address again.
    Defend,
    /// The Lease may be theirs: stop.
    Yield,
}

#[derive(Debug)]
struct Entry {
    lease: Option<(Observed, Instant)>,
    /// Since when things are as they are, for a Lease that does not exist.
    since: Instant,
    candidate: Option<Instant>,
    known: bool,
    in_flight: bool,
    not_before: Option<Instant>,
    /// When the renewal that the API server last confirmed was sent.
    renewed: Option<Instant>,
    contested: bool,
}

/// This node's part in all elections.
#[derive(Debug)]
pub(crate) struct Election {
    me: String,
    timing: Timing,
    listed: bool,
    informed: bool,
    entries: BTreeMap<IpAddr, Entry>,
}

impl Election {
    /// Knows nothing yet, and does nothing before it was told both the Leases and the addresses.
    pub(crate) fn new(me: &str, timing: Timing) -> Self {
        Election { me: me.to_owned(), timing, listed: false, informed: false, entries: BTreeMap::new() }
    }

    /// The addresses of all Services, and those among them that this node may announce.
    pub(crate) fn want(&mut self, known: &BTreeSet<IpAddr>, candidates: &BTreeSet<IpAddr>, now: Instant) {
        self.informed = true;
        for address in known.iter().chain(candidates) {
            self.entry(*address, now);
        }
        for (address, entry) in &mut self.entries {
            entry.known = known.contains(address) || candidates.contains(address);
            entry.candidate = candidates.contains(address).then(|| entry.candidate.unwrap_or(now));
        }
    }

    /// Every Lease there is.
    pub(crate) fn list(&mut self, leases: BTreeMap<IpAddr, Observed>, now: Instant) {
        self.listed = true;
        let gone: Vec<IpAddr> =
            self.entries.keys().filter(|address| !leases.contains_key(*address)).copied().collect();
        gone.into_iter().for_each(|address| self.observe(address, None, now));
        for (address, lease) in leases {
            self.observe(address, Some(lease), now);
        }
    }

    /// A Lease is so now; `None` when it is gone.
    pub(crate) fn observe(&mut self, address: IpAddr, lease: Option<Observed>, now: Instant) {
        let me = self.me.clone();
        let entry = self.entry(address, now);
        let holds = lease.as_ref().is_some_and(|lease| lease.holder == me);
        if !holds {
            entry.renewed = None;
            entry.contested = false;
        }
        match (lease, &mut entry.lease) {
            (Some(lease), Some((before, _))) if *before == lease => {}
            (Some(lease), slot) => *slot = Some((lease, now)),
            (None, slot) => {
                if slot.take().is_some() {
                    entry.since = now;
                }
            }
        }
    }

    /// What became of the command about this address that was sent at `sent`.
    pub(crate) fn outcome(&mut self, address: IpAddr, outcome: Outcome, sent: Instant, now: Instant) {
        let (me, retry) = (self.me.clone(), self.timing.retry);
        let entry = self.entry(address, now);
        entry.in_flight = false;
        entry.not_before = None;
        match outcome {
            Outcome::Written(lease) => {
                let holds = lease.holder == me;
                self.observe(address, Some(lease), now);
                let entry = self.entry(address, now);
                if holds {
                    entry.renewed = Some(sent);
                    entry.contested = false;
                }
            }
            Outcome::Gone => self.observe(address, None, now),
            Outcome::Outrun | Outcome::Failed => entry.not_before = Some(now + retry),
        }
    }

    /// Somebody else claims the address on the link.
    pub(crate) fn heard_claim(&mut self, address: IpAddr, now: Instant) -> Reaction {
        let lease = self.timing.lease;
        if !self.announces(&address) {
            return Reaction::Ignore;
        }
        let Some(entry) = self.entries.get_mut(&address) else { return Reaction::Ignore };
        if entry.renewed.is_some_and(|renewed| now < renewed + lease) {
            return Reaction::Defend;
        }
        entry.contested = true;
        Reaction::Yield
    }

    /// What to do now. Each address has one command under way at most.
    pub(crate) fn step(&mut self, now: Instant) -> Vec<Command> {
        if !(self.listed && self.informed) {
            return Vec::new();
        }
        let (me, timing) = (self.me.clone(), self.timing);
        let mut commands = Vec::new();
        for (address, entry) in &mut self.entries {
            if due(&me, &timing, *address, entry).is_some_and(|at| at <= now) {
                commands.push(command(&me, *address, entry));
                entry.in_flight = true;
            }
        }
        self.entries.retain(|_, entry| entry.known || entry.lease.is_some());
        commands
    }

    /// When there is something to do next, if nothing happens before.
    pub(crate) fn wake(&self) -> Option<Instant> {
        if !(self.listed && self.informed) {
            return None;
        }
        self.entries.iter().filter_map(|(address, entry)| due(&self.me, &self.timing, *address, entry)).min()
    }

    /// The addresses that this node announces.
    pub(crate) fn announced(&self) -> BTreeSet<IpAddr> {
        self.entries.keys().filter(|address| self.announces(address)).copied().collect()
    }

    /// What to do when the process ends; `leaving` when the node is about to go as well.
    pub(crate) fn farewell(&self, leaving: bool) -> Vec<Command> {
        let after = if leaving { Duration::ZERO } else { self.timing.handover };
        let held = self.entries.iter().filter_map(|(address, entry)| {
            let (lease, _) = entry.lease.as_ref().filter(|(lease, _)| lease.holder == self.me)?;
            Some(Command::Release(*address, lease.clone(), after))
        });
        held.collect()
    }

    fn announces(&self, address: &IpAddr) -> bool {
        self.entries.get(address).is_some_and(|entry| {
            let holds = entry.lease.as_ref().is_some_and(|(lease, _)| lease.holder == self.me);
            entry.candidate.is_some() && holds && entry.renewed.is_some() && !entry.contested
        })
    }

    fn entry(&mut self, address: IpAddr, now: Instant) -> &mut Entry {
        self.entries.entry(address).or_insert_with(|| Entry {
            lease: None,
            since: now,
            candidate: None,
            known: false,
            in_flight: false,
            not_before: None,
            renewed: None,
            contested: false,
        })
    }
}

/// When there is something to do about the address; `None` while there is nothing.
fn due(me: &str, timing: &Timing, address: IpAddr, entry: &Entry) -> Option<Instant> {
    if entry.in_flight {
        return None;
    }
    let free = match &entry.lease {
        Some((lease, seen)) if lease.holder == me => {
            let next = entry.renewed.map_or(*seen, |renewed| renewed + timing.renew);
            let at = if entry.candidate.is_some() { next } else { *seen };
            return Some(entry.not_before.map_or(at, |not_before| at.max(not_before)));
        }
        Some((lease, seen)) if lease.holder.is_empty() => *seen,
        Some((lease, seen)) => *seen + lease.duration,
        None => entry.since,
    };
    let at = match entry.candidate {
        Some(candidate) => free.max(candidate) + delay(me, timing.spread, address),
        None if !entry.known && entry.lease.is_some() => {
            free + timing.leftover + delay(me, timing.spread, address)
        }
        None => return None,
    };
    Some(entry.not_before.map_or(at, |not_before| at.max(not_before)))
}

fn command(me: &str, address: IpAddr, entry: &Entry) -> Command {
    match (&entry.lease, entry.candidate) {
        (lease, Some(_)) => Command::Claim(address, lease.as_ref().map(|(lease, _)| lease.clone())),
        (Some((lease, _)), None) if entry.known && lease.holder == me => {
            Command::Release(address, lease.clone(), Duration::ZERO)
        }
        (Some((lease, _)), None) => Command::Delete(address, lease.clone()),
        // Not reached: without a Lease only candidates have something to do.
        (None, None) => Command::Claim(address, None),
    }
}

/// The delay of this node for this address: different for each pair, and the same each time.
fn delay(me: &str, spread: Duration, address: IpAddr) -> Duration {
    let mut hasher = DefaultHasher::new();
    (address, me).hash(&mut hasher);
    let share = u32::try_from(hasher.finish() >> 32).unwrap_or(u32::MAX);
    spread.mul_f64(f64::from(share) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
