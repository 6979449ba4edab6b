//! Session affinity from user space: a dump, and removal of what has timed out or leads nowhere.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use skep_abi::{AffinityKey, AffinityValue, V4, V6, maps};

use crate::{
    codec::Family,
    conntrack::{CutBackend, GcReport, now_tick},
    rows::{Frontend, FrontendKey},
    sys::RawMap,
    table::TableError,
};

/// Who stays with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AffinityClient {
    /// A client by its address.
    Address(IpAddr),
    /// Every process of a network namespace, by its cookie.
    Netns(u64),
}

/// A client that stays with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffinityEntry {
    /// Number of the set.
    pub set: u32,
    /// Who.
    pub client: AffinityClient,
    /// With whom.
    pub backend: SocketAddr,
    /// Seconds since its last new connection.
    pub idle: u32,
}

/// What is known of a set: which family its addresses are of, and how long its clients stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SetFacts {
    is_v6: bool,
    seconds: u32,
}

fn facts_of(frontends: &[(FrontendKey, Frontend)]) -> HashMap<u32, SetFacts> {
    frontends
        .iter()
        .map(|(key, value)| {
            (value.set, SetFacts { is_v6: key.address.ip.is_ipv6(), seconds: value.affinity_seconds })
        })
        .collect()
}

fn entry(key: &AffinityKey, value: &AffinityValue, is_v6: bool, now: u32) -> AffinityEntry {
    let ip =
        |words: [u32; 4]| if is_v6 { V6::from_words(words).to_ip() } else { V4::from_words(words).to_ip() };
    let client = if key.kind == AffinityKey::NETNS {
        AffinityClient::Netns(u64::from(key.client[0]) | u64::from(key.client[1]) << 32)
    } else {
        AffinityClient::Address(ip(key.client))
    };
    AffinityEntry {
        set: key.set,
        client,
        backend: SocketAddr::new(ip(value.addr), value.port.get()),
        idle: now.wrapping_sub(value.last_used).cast_signed().max(0).cast_unsigned(),
    }
}

fn kernel_error(source: std::io::Error) -> TableError {
    TableError::Kernel { table: maps::AFFINITY.name, source }
}

fn read(map: &RawMap) -> Result<Vec<(AffinityKey, AffinityValue)>, TableError> {
    map.entries().map_err(kernel_error)
}

/// Every entry. The words of an address without anything after the first are IPv4's, unless the set says otherwise.
pub(crate) fn dump(
    map: &Arc<RawMap>,
    frontends: &[(FrontendKey, Frontend)],
) -> Result<Vec<AffinityEntry>, TableError> {
    let (facts, now) = (facts_of(frontends), now_tick());
    let rows = read(map)?;
    let is_v6 = |key: &AffinityKey, value: &AffinityValue| {
        facts.get(&key.set).map_or_else(|| value.addr[1..] != [0; 3], |facts| facts.is_v6)
    };
    Ok(rows.iter().map(|(key, value)| entry(key, value, is_v6(key, value), now)).collect())
}

/// Removes entries of sets that are gone or have no affinity any more, and those that have timed out.
pub(crate) fn collect(
    map: &Arc<RawMap>,
    frontends: &[(FrontendKey, Frontend)],
) -> Result<GcReport, TableError> {
    let (facts, now) = (facts_of(frontends), now_tick());
    let rows = read(map)?;
    let mut report = GcReport { seen: rows.len(), ..GcReport::default() };
    for (key, value) in &rows {
        if !has_ended(facts.get(&key.set), value, now) {
            continue;
        }
        let current = map.get::<AffinityKey, AffinityValue>(key).map_err(kernel_error)?;
        if current.is_some_and(|current| current.last_used != value.last_used) {
            report.revived += 1;
            continue;
        }
        map.delete(key).map_err(kernel_error)?;
        report.removed += 1;
    }
    Ok(report)
}

fn has_ended(facts: Option<&SetFacts>, value: &AffinityValue, now: u32) -> bool {
    let idle = now.wrapping_sub(value.last_used).cast_signed().max(0).cast_unsigned();
    // A tick is a little longer than a second: in doubt the entry stays.
    facts.is_none_or(|facts| facts.seconds == 0 || idle > facts.seconds)
}

/// Removes what leads to one of the backends; says how many entries went.
pub(crate) fn cut(map: &Arc<RawMap>, backends: &[CutBackend]) -> Result<usize, TableError> {
    let mut removed = 0;
    for (key, value) in read(map)? {
        let leads_there = |cut: &CutBackend| {
            let found = entry(&key, &value, cut.backend.is_ipv6(), 0);
            found.backend == cut.backend && cut.set.is_none_or(|set| set == key.set)
        };
        if backends.iter().any(leads_there) {
            map.delete(&key).map_err(kernel_error)?;
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use skep_abi::Be16;

    use super::*;

    #[test]
    fn a_client_stays_for_the_time_its_service_says() {
        let facts = SetFacts { is_v6: false, seconds: 100 };
        let value = AffinityValue { last_used: 1000, ..AffinityValue::default() };
        assert!(!has_ended(Some(&facts), &value, 1100));
        assert!(has_ended(Some(&facts), &value, 1101));
        assert!(!has_ended(Some(&facts), &value, 999), "stamped after the look");
        assert!(has_ended(Some(&SetFacts { seconds: 0, ..facts }), &value, 1000));
        assert!(has_ended(None, &value, 1000));
    }

    #[test]
    fn clients_read_as_addresses_or_namespaces() {
        let client = V4::new([192, 0, 2, 9]);
        let backend = V4::new([10, 244, 1, 7]);
        let words = |addr: V4| [addr.raw(), 0, 0, 0];
        let value = AffinityValue { addr: words(backend), port: Be16::new(80), slot: 0, last_used: 5 };
        let by_address = entry(&AffinityKey::address(3, client), &value, false, 9);
        assert_eq!(by_address.client, AffinityClient::Address([192, 0, 2, 9].into()));
        assert_eq!((by_address.backend, by_address.idle), (SocketAddr::from(([10, 244, 1, 7], 80)), 4));
        let cookie = 0x1_0000_0002;
        let by_netns = entry(&AffinityKey::netns(3, cookie), &value, false, 9);
        assert_eq!(by_netns.client, AffinityClient::Netns(cookie));
    }
}
