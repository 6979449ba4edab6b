//! What a cluster name stands for. Pure: a view of Services in, records out.
//!
//! The schema of names is the Kubernetes DNS specification, version 1.1.0: `SERVICE.NS.svc.ZONE`,
//! `HOST.SERVICE.NS.svc.ZONE`, `_PORT._PROTO.SERVICE.NS.svc.ZONE`, `A-B-C-D.NS.pod.ZONE`, `dns-version.ZONE` and the
//! reverse names of Service and endpoint addresses. Owned names that stand for nothing are NXDOMAIN at once, so that
//! a stub resolver walks its search list quickly (RFC 2308: the SOA bounds how long a client may remember that).

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hickory_proto::{
    ProtoError,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT},
    },
};
use skep_model::{
    DnsChange, DnsPort, DnsTarget, DnsView, HeadlessEndpoint, HeadlessSubset, NamespacedName, Protocol,
};

/// Seconds that a client may keep an answer of ours; short, because Services change.
pub const TTL: u32 = 5;
/// The version of the specification that is implemented.
const SPECIFICATION: &str = "1.1.0";

/// What a question's name and type come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Records for the answer section, and addresses worth sending along.
    Records(Vec<Record>, Vec<Record>),
    /// The name is another's: the CNAME record, and where to look on.
    Alias(Box<Record>, Name),
    /// The name exists, the type does not (NODATA).
    NoData,
    /// The name does not exist (NXDOMAIN).
    NoName,
    /// The name is not of this zone.
    NotOurs,
}

/// The cluster's zone: the view and its reverse index.
#[derive(Debug)]
pub struct Zone {
    origin: Name,
    dns_addresses: Vec<IpAddr>,
    labels: Vec<String>,
    view: DnsView,
    reverse: HashMap<IpAddr, BTreeSet<String>>,
    serial: u32,
}

impl Zone {
    /// An empty zone for the cluster domain, such as `cluster.local`, served at `dns_addresses`.
    ///
    /// # Errors
    /// When the domain is no DNS name.
    pub fn new(domain: &str, dns_addresses: Vec<IpAddr>) -> Result<Self, ProtoError> {
        let mut origin = Name::from_ascii(domain)?.to_lowercase();
        origin.set_fqdn(true);
        let labels = labels_of(&origin);
        Ok(Self {
            origin,
            dns_addresses,
            labels,
            view: DnsView::default(),
            reverse: HashMap::new(),
            serial: 1,
        })
    }

    /// The view that answers are made from.
    pub fn view(&self) -> &DnsView {
        &self.view
    }

    /// Replaces the whole view.
    pub fn replace(&mut self, view: DnsView) {
        self.apply(self.view.change_to(&view));
    }

    /// Applies what changed, at a cost of the change alone.
    pub fn apply(&mut self, change: DnsChange) {
        for name in change.removed_services.iter().chain(change.services.keys()) {
            if let Some(target) = self.view.services.get(name) {
                for (address, reverse) in reverse_names(name, target) {
                    remove_reverse(&mut self.reverse, address, &reverse);
                }
            }
        }
        for (name, target) in &change.services {
            for (address, reverse) in reverse_names(name, target) {
                self.reverse.entry(address).or_default().insert(reverse);
            }
        }
        self.view.apply(change);
        self.serial = self.serial.wrapping_add(1);
    }

    /// The zone's SOA, for the authority section of a negative answer.
    pub fn soa(&self) -> Record {
        let host = |label: &str| self.name_below(&[label]);
        let soa = SOA::new(host("ns.dns"), host("hostmaster"), self.serial, 7200, 1800, 86400, TTL);
        Record::from_rdata(self.origin.clone(), TTL, RData::SOA(soa))
    }

    /// Answers a question of class IN.
    pub fn lookup(&self, name: &Name, kind: RecordType) -> Answer {
        let labels = labels_of(name);
        let Some(below) = strip_suffix(&labels, &self.labels) else {
            return self.lookup_reverse(name, &labels, kind);
        };
        let below: Vec<&str> = below.iter().map(String::as_str).collect();
        match below.as_slice() {
            [] => self.apex(name, kind),
            ["dns-version"] => of_type(kind, RecordType::TXT, || {
                vec![record(name, RData::TXT(TXT::new(vec![SPECIFICATION.to_owned()])))]
            }),
            ["dns"] | ["svc"] | ["pod"] => Answer::NoData,
            ["ns", "dns"] => addresses(name, kind, self.dns_addresses.iter().copied()),
            [namespace, "svc" | "pod"] => self.namespace_exists(namespace),
            [host, namespace, "pod"] => self.pod(name, kind, host, namespace),
            [rest @ .., service, namespace, "svc"] => {
                let service = NamespacedName { namespace: (*namespace).into(), name: (*service).into() };
                match self.view.services.get(&service) {
                    Some(target) => self.service(name, kind, &service, target, rest),
                    None => Answer::NoName,
                }
            }
            _ => Answer::NoName,
        }
    }

    fn apex(&self, name: &Name, kind: RecordType) -> Answer {
        match kind {
            RecordType::SOA => Answer::Records(vec![self.soa()], vec![]),
            RecordType::NS => {
                Answer::Records(vec![record(name, RData::NS(NS(self.name_below(&["ns.dns"]))))], vec![])
            }
            _ => Answer::NoData,
        }
    }

    fn namespace_exists(&self, namespace: &str) -> Answer {
        if self.view.namespaces.contains(namespace) { Answer::NoData } else { Answer::NoName }
    }

    fn pod(&self, name: &Name, kind: RecordType, host: &str, namespace: &str) -> Answer {
        match parse_dashed(host) {
            Some(address) if self.view.namespaces.contains(namespace) => addresses(name, kind, [address]),
            _ => Answer::NoName,
        }
    }

    fn service(
        &self,
        name: &Name,
        kind: RecordType,
        service: &NamespacedName,
        target: &DnsTarget,
        rest: &[&str],
    ) -> Answer {
        match (target, rest) {
            (DnsTarget::External(external), []) => alias(name, external),
            (DnsTarget::External(_), _) => Answer::NoName,
            (DnsTarget::Cluster { addresses: list, ports }, []) if kind == RecordType::SRV => {
                self.service_srv(name, service, list, ports, |_| true)
            }
            (DnsTarget::Cluster { addresses: list, .. }, []) => addresses(name, kind, list.iter().copied()),
            (DnsTarget::Cluster { addresses: list, ports }, [port, protocol]) => {
                let Some(wanted) = WantedPort::parse(port, protocol) else { return Answer::NoName };
                if !ports.iter().any(|port| wanted.matches(port)) {
                    return Answer::NoName;
                }
                of_srv(kind, || self.service_srv(name, service, list, ports, |port| wanted.matches(port)))
            }
            (DnsTarget::Cluster { ports, .. }, [protocol]) => empty_non_terminal(protocol, ports.iter()),
            (DnsTarget::Headless(subsets), []) if kind == RecordType::SRV => {
                self.headless_srv(name, service, subsets, |_| true)
            }
            (DnsTarget::Headless(subsets), []) => {
                addresses(name, kind, endpoints(subsets).map(|endpoint| endpoint.address))
            }
            (DnsTarget::Headless(subsets), [port, protocol]) => {
                let Some(wanted) = WantedPort::parse(port, protocol) else { return Answer::NoName };
                if !subsets.iter().flat_map(|subset| &subset.ports).any(|port| wanted.matches(port)) {
                    return Answer::NoName;
                }
                of_srv(kind, || self.headless_srv(name, service, subsets, |port| wanted.matches(port)))
            }
            (DnsTarget::Headless(subsets), [host]) => {
                if host.starts_with('_') {
                    return empty_non_terminal(host, subsets.iter().flat_map(|subset| &subset.ports));
                }
                let mut matching = endpoints(subsets)
                    .filter(|endpoint| endpoint_host(endpoint) == *host)
                    .map(|endpoint| endpoint.address)
                    .peekable();
                if matching.peek().is_none() { Answer::NoName } else { addresses(name, kind, matching) }
            }
            _ => Answer::NoName,
        }
    }

    fn service_srv(
        &self,
        name: &Name,
        service: &NamespacedName,
        list: &[IpAddr],
        ports: &[DnsPort],
        wanted: impl Fn(&DnsPort) -> bool,
    ) -> Answer {
        let target = self.name_below(&[&service.name, &service.namespace, "svc"]);
        let records = ports
            .iter()
            .filter(|port| wanted(port))
            .map(|port| record(name, RData::SRV(SRV::new(0, 100, port.port.get(), target.clone()))))
            .collect();
        let additional = list.iter().map(|address| address_record(&target, *address)).collect();
        found(records, additional)
    }

    fn headless_srv(
        &self,
        name: &Name,
        service: &NamespacedName,
        subsets: &[HeadlessSubset],
        wanted: impl Fn(&DnsPort) -> bool,
    ) -> Answer {
        let (mut records, mut additional) = (vec![], vec![]);
        let share = endpoints(subsets).count().clamp(1, 100);
        let weight = u16::try_from(100 / share).unwrap_or(1).max(1);
        for subset in subsets {
            for endpoint in &subset.endpoints {
                let host = endpoint_host(endpoint);
                let target = self.name_below(&[&host, &service.name, &service.namespace, "svc"]);
                let before = records.len();
                records.extend(subset.ports.iter().filter(|port| wanted(port)).map(|port| {
                    record(name, RData::SRV(SRV::new(0, weight, port.port.get(), target.clone())))
                }));
                if records.len() > before {
                    additional.push(address_record(&target, endpoint.address));
                }
            }
        }
        found(records, additional)
    }

    fn lookup_reverse(&self, name: &Name, labels: &[String], kind: RecordType) -> Answer {
        let Some(address) = parse_reverse(labels) else { return Answer::NotOurs };
        let Some(names) = self.reverse.get(&address) else { return Answer::NotOurs };
        of_type(kind, RecordType::PTR, || {
            names.iter().map(|relative| record(name, RData::PTR(PTR(self.name_below(&[relative]))))).collect()
        })
    }

    /// A name of this zone. Labels come from Kubernetes names, which are valid DNS labels; one that is not (a
    /// foreign feed) yields the origin rather than a panic.
    fn name_below(&self, labels: &[&str]) -> Name {
        let mut name = Name::new();
        for label in labels.iter().flat_map(|part| part.split('.')) {
            name = match name.append_label(label) {
                Ok(name) => name,
                Err(_) => return self.origin.clone(),
            };
        }
        name.append_domain(&self.origin).unwrap_or_else(|_| self.origin.clone())
    }
}

/// The port that an SRV name asks for.
struct WantedPort<'a> {
    name: &'a str,
    protocol: Protocol,
}

impl<'a> WantedPort<'a> {
    fn parse(port: &'a str, protocol: &str) -> Option<Self> {
        let protocol = protocol.strip_prefix('_')?.to_ascii_uppercase().parse().ok()?;
        Some(Self { name: port.strip_prefix('_')?, protocol })
    }

    fn matches(&self, port: &DnsPort) -> bool {
        port.protocol == self.protocol && port.name.as_deref() == Some(self.name)
    }
}

fn of_type(kind: RecordType, wanted: RecordType, records: impl FnOnce() -> Vec<Record>) -> Answer {
    if kind == wanted || kind == RecordType::ANY { found(records(), vec![]) } else { Answer::NoData }
}

fn of_srv(kind: RecordType, answer: impl FnOnce() -> Answer) -> Answer {
    if kind == RecordType::SRV || kind == RecordType::ANY { answer() } else { Answer::NoData }
}

fn found(records: Vec<Record>, additional: Vec<Record>) -> Answer {
    if records.is_empty() { Answer::NoData } else { Answer::Records(records, additional) }
}

/// `_tcp.SERVICE...` exists when a named port of that protocol does, though it has no records (RFC 8020).
fn empty_non_terminal<'a>(label: &str, mut ports: impl Iterator<Item = &'a DnsPort>) -> Answer {
    let protocol: Option<Protocol> =
        label.strip_prefix('_').and_then(|text| text.to_ascii_uppercase().parse().ok());
    let exists =
        protocol.is_some_and(|protocol| ports.any(|port| port.name.is_some() && port.protocol == protocol));
    if exists { Answer::NoData } else { Answer::NoName }
}

fn alias(name: &Name, external: &str) -> Answer {
    match Name::from_ascii(external) {
        Ok(mut target) => {
            target.set_fqdn(true);
            Answer::Alias(Box::new(record(name, RData::CNAME(CNAME(target.clone())))), target)
        }
        Err(_) => Answer::NoData,
    }
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

fn address_record(name: &Name, address: IpAddr) -> Record {
    match address {
        IpAddr::V4(address) => record(name, RData::A(A(address))),
        IpAddr::V6(address) => record(name, RData::AAAA(AAAA(address))),
    }
}

fn addresses(name: &Name, kind: RecordType, list: impl IntoIterator<Item = IpAddr>) -> Answer {
    let wanted = |address: &IpAddr| match kind {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        RecordType::ANY => true,
        _ => false,
    };
    found(list.into_iter().filter(wanted).map(|address| address_record(name, address)).collect(), vec![])
}

fn endpoints(subsets: &[HeadlessSubset]) -> impl Iterator<Item = &HeadlessEndpoint> {
    subsets.iter().flat_map(|subset| &subset.endpoints)
}

/// The label of an endpoint below its Service: the pod's hostname, else the address with dashes.
fn endpoint_host(endpoint: &HeadlessEndpoint) -> String {
    endpoint.hostname.clone().unwrap_or_else(|| endpoint.address.to_string().replace(['.', ':'], "-"))
}

/// `10-244-1-7` or `fd00--7` as an address.
fn parse_dashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    v4.or_else(|| label.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6))
}

/// The address of an `in-addr.arpa` or `ip6.arpa` name; partial names have none.
fn parse_reverse(labels: &[String]) -> Option<IpAddr> {
    let [digits @ .., family, arpa] = labels else { return None };
    if arpa != "arpa" {
        return None;
    }
    match (family.as_str(), digits.len()) {
        ("in-addr", 4) => {
            let octets: Vec<u8> =
                digits.iter().rev().map(|digit| digit.parse().ok()).collect::<Option<_>>()?;
            <[u8; 4]>::try_from(octets).ok().map(|octets| IpAddr::V4(octets.into()))
        }
        ("ip6", 32) => {
            let mut bits = 0u128;
            for digit in digits.iter().rev() {
                let nibble = u128::from(digit.parse::<char>().ok()?.to_digit(16)?);
                bits = bits << 4 | nibble;
            }
            Some(IpAddr::V6(bits.into()))
        }
        _ => None,
    }
}

/// The reverse names that a Service gives to addresses, relative to the zone.
fn reverse_names(name: &NamespacedName, target: &DnsTarget) -> Vec<(IpAddr, String)> {
    let service = format!("{}.{}.svc", name.name, name.namespace);
    match target {
        DnsTarget::Cluster { addresses, .. } => {
            addresses.iter().map(|address| (*address, service.clone())).collect()
        }
        DnsTarget::Headless(subsets) => endpoints(subsets)
            .map(|endpoint| (endpoint.address, format!("{}.{service}", endpoint_host(endpoint))))
            .collect(),
        DnsTarget::External(_) => vec![],
    }
}

fn remove_reverse(reverse: &mut HashMap<IpAddr, BTreeSet<String>>, address: IpAddr, name: &str) {
    if let Some(names) = reverse.get_mut(&address) {
        names.remove(name);
        if names.is_empty() {
            reverse.remove(&address);
        }
    }
}

/// Labels of a name in lower case (RFC 4343), from the leaf to the root.
fn labels_of(name: &Name) -> Vec<String> {
    name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect()
}

fn strip_suffix<'a>(labels: &'a [String], suffix: &[String]) -> Option<&'a [String]> {
    labels.strip_suffix(suffix)
}

#[cfg(test)]
mod tests;
