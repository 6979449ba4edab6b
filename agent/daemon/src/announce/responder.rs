//! Answers for the announced addresses, and tells the link when one comes here.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    frame::{self, Heard},
    socket::{Groups, LONGEST, LinkSocket, links},
    wanted::Device,
};

/// The addresses that this node announces, and the devices it does so on.
pub(crate) type Table = BTreeMap<IpAddr, BTreeSet<Device>>;

/// How often a new address is claimed, and how far apart: the first claims may be lost.
const CLAIMS: u8 = 5;
const BETWEEN_CLAIMS: Duration = Duration::from_secs(1);
/// An address is defended against other claims no oftener than this.
const BETWEEN_DEFENCES: Duration = Duration::from_secs(1);

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    addresses: IntGauge,
    answers: IntCounterVec,
    claims: IntCounter,
    disputes: IntCounter,
}

impl Metrics {
    /// Registers everything.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let answers =
            Opts::new("skep_l2_answers_total", "Questions for announced addresses that were answered.");
        let metrics = Metrics {
            addresses: IntGauge::new("skep_l2_addresses", "Addresses of Services that this node announces.")?,
            answers: IntCounterVec::new(answers, &["family"])?,
            claims: counter("skep_l2_claims_total", "Gratuitous announcements sent.")?,
            disputes: counter("skep_l2_disputes_total", "Claims of others for announced addresses.")?,
        };
        registry.register(Box::new(metrics.addresses.clone()))?;
        registry.register(Box::new(metrics.answers.clone()))?;
        Ok(metrics)
    }
}

/// The sockets and what they answer.
#[derive(Debug)]
pub(crate) struct Responder {
    arp: LinkSocket,
    discovery: LinkSocket,
    groups: Groups,
    joined: BTreeSet<(Ipv6Addr, u32)>,
    table: Table,
    /// Claims that are due: how many are left, and when the next one is.
    due: BTreeMap<IpAddr, (u8, Instant)>,
    defended: BTreeMap<IpAddr, Instant>,
    metrics: Metrics,
}

impl Responder {
    /// Opens the sockets.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub(crate) fn open(metrics: Metrics) -> io::Result<Self> {
        Ok(Responder {
            arp: LinkSocket::arp()?,
            discovery: LinkSocket::discovery()?,
            groups: Groups::open()?,
            joined: BTreeSet::new(),
            table: Table::new(),
            due: BTreeMap::new(),
            defended: BTreeMap::new(),
            metrics,
        })
    }

    /// Answers until nobody changes the table any more. Claims of others go to `disputes`; what comes from `defend` is
    /// claimed again.
    pub(crate) async fn run(
        mut self,
        mut tables: watch::Receiver<Table>,
        disputes: mpsc::Sender<IpAddr>,
        mut defend: mpsc::Receiver<IpAddr>,
    ) {
        let (mut arp, mut discovery) = ([0; LONGEST], [0; LONGEST]);
        loop {
            let next = self.due.values().map(|(_, at)| *at).min();
            let timer = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = tables.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let table = tables.borrow_and_update().clone();
                    self.change(table);
                }
                received = self.arp.receive(&mut arp) => match received {
                    Ok((length, by)) => self.hear(&arp[..length], &by, &disputes),
                    Err(error) => pause(&error).await,
                },
                received = self.discovery.receive(&mut discovery) => match received {
                    Ok((length, by)) => self.hear(&discovery[..length], &by, &disputes),
                    Err(error) => pause(&error).await,
                },
                Some(address) = defend.recv() => self.defend(address),
                () = timer => {}
            }
            self.claim_due();
        }
    }

    fn change(&mut self, table: Table) {
        let now = Instant::now();
        for (address, devices) in &table {
            if self.table.get(address).is_none_or(|before| !before.is_superset(devices)) {
                self.due.insert(*address, (CLAIMS, now));
                let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
                tracing::info!(%address, devices = names.join(","), "announcing");
            }
        }
        for address in self.table.keys().filter(|address| !table.contains_key(*address)) {
            self.due.remove(address);
            tracing::info!(%address, "no longer announcing");
        }
        self.table = table;
        self.defended.retain(|address, _| self.table.contains_key(address));
        self.metrics.addresses.set(i64::try_from(self.table.len()).unwrap_or(i64::MAX));
        self.change_groups();
    }

    fn change_groups(&mut self) {
        let mut wanted = BTreeSet::new();
        for (address, devices) in &self.table {
            if let IpAddr::V6(address) = address {
                wanted.extend(devices.iter().map(|device| (frame::solicited_node(*address), device.index)));
            }
        }
        for (group, device) in self.joined.difference(&wanted) {
            self.groups.leave(*group, *device);
        }
        for (group, device) in wanted.difference(&self.joined) {
            if let Err(error) = self.groups.join(*group, *device) {
                tracing::warn!(%group, device, %error, "questions for the address may not arrive: is IPv6 off on the device?");
            }
        }
        self.joined = wanted;
    }

    fn hear(&mut self, bytes: &[u8], by: &nix::sys::socket::LinkAddr, disputes: &mpsc::Sender<IpAddr>) {
        let index = u32::try_from(by.ifindex()).unwrap_or_default();
        let Some(Heard { question, claim }) = frame::read(bytes) else { return };
        if let Some(question) = question
            && let Some(device) = self.device(question.target, index)
            && let Some(answer) = frame::answer(&question, device.mac)
        {
            let v4 = question.target.is_ipv4();
            let socket = if v4 { &self.arp } else { &self.discovery };
            match socket.send(&answer, by) {
                Ok(()) => self.metrics.answers.with_label_values(&[if v4 { "IPv4" } else { "IPv6" }]).inc(),
                Err(error) => tracing::debug!(address = %question.target, %error, "answer not sent"),
            }
        }
        if let Some((address, mac)) = claim
            && self.device(address, index).is_some()
            && !self.table.values().flatten().any(|device| device.mac == mac)
        {
            self.metrics.disputes.inc();
            tracing::debug!(%address, %mac, "another machine claims the address");
            // A full queue loses nothing: the dispute goes on.
            let _ = disputes.try_send(address);
        }
    }

    fn device(&self, address: IpAddr, index: u32) -> Option<&Device> {
        self.table.get(&address)?.iter().find(|device| device.index == index)
    }

    fn defend(&mut self, address: IpAddr) {
        let now = Instant::now();
        let recent = self.defended.get(&address).is_some_and(|at| now < *at + BETWEEN_DEFENCES);
        if recent || !self.table.contains_key(&address) {
            return;
        }
        tracing::warn!(%address, "another machine claims an address that this node announces");
        self.defended.insert(address, now);
        self.due.entry(address).or_insert((1, now));
    }

    fn claim_due(&mut self) {
        let now = Instant::now();
        let due: Vec<IpAddr> =
            self.due.iter().filter(|(_, (_, at))| *at <= now).map(|(address, _)| *address).collect();
        if due.is_empty() {
            return;
        }
        let links = links().unwrap_or_default();
        for address in due {
            for device in self.table.get(&address).into_iter().flatten() {
                let socket = if address.is_ipv4() { &self.arp } else { &self.discovery };
                for claim in frame::claims(address, device.mac) {
                    let Some(link) = links.get(&device.index) else { continue };
                    match socket.send(&claim, link) {
                        Ok(()) => self.metrics.claims.inc(),
                        Err(error) => {
                            tracing::debug!(%address, device = device.name, %error, "claim not sent")
                        }
                    }
                }
            }
            if let Some((left, at)) = self.due.get_mut(&address) {
                *left -= 1;
                *at = now + BETWEEN_CLAIMS;
            }
        }
        self.due.retain(|_, (left, _)| *left > 0);
    }
}

/// A socket that fails, as when a device goes down, must not be asked again at once.
async fn pause(error: &io::Error) {
    tracing::debug!(%error, "the socket reports");
    tokio::time::sleep(Duration::from_millis(50)).await;
}
