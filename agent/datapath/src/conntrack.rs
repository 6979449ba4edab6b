//! Conntrack from user space: a dump, and garbage collection that never takes a live entry.
//!
//! The decision is pure ([`expired`]); the clock is a parameter. A translated flow has two entries that each see one
//! direction; they live and die together.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use skep_abi::{
    Be16, TICK_SHIFT,
    addr::V4,
    conntrack::{CtFlags, CtKey, CtState, CtValue},
    maps,
};

use crate::{kernel::from_v4, sys::RawMap, table::TableError};

type Key = CtKey<V4>;
type Value = CtValue<V4>;

const TCP: u8 = 6;
const ICMP: u8 = 1;

/// How long an idle flow is remembered, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP without a reply yet.
    pub tcp_opening: u32,
    /// Established TCP: longer than the two hours after which hosts send keep-alives.
    pub tcp_established: u32,
    /// TCP with one side finished.
    pub tcp_half_closed: u32,
    /// TCP with both sides finished, or reset.
    pub tcp_closed: u32,
    /// Anything else without a reply.
    pub other_opening: u32,
    /// Anything else with replies.
    pub other_established: u32,
    /// ICMP echo.
    pub icmp: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_opening: 60,
            tcp_established: 8 * 3600,
            tcp_half_closed: 600,
            tcp_closed: 10,
            other_opening: 30,
            other_established: 180,
            icmp: 30,
        }
    }
}

impl Timeouts {
    fn of(&self, protocol: u8, state: CtState) -> u32 {
        match (protocol, state) {
            (TCP, CtState::Opening) => self.tcp_opening,
            (TCP, CtState::Established) => self.tcp_established,
            (TCP, CtState::HalfClosed) => self.tcp_half_closed,
            (TCP, CtState::Closed) => self.tcp_closed,
            (ICMP, _) => self.icmp,
            (_, CtState::Opening) => self.other_opening,
            (_, _) => self.other_established,
        }
    }
}

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Entries seen.
    pub seen: usize,
    /// Entries removed.
    pub removed: usize,
    /// Entries that came back to life between the look and the removal.
    pub revived: usize,
}

/// A flow, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtEntry {
    /// Who sent the first packet.
    pub source: SocketAddr,
    /// To whom it was addressed (of a translated flow: the frontend on one entry, the backend on the other).
    pub destination: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// State as far as this entry alone knows.
    pub state: CtState,
    /// Where the entry translates to: the backend for packets, the frontend for replies.
    pub translated: Option<SocketAddr>,
    /// Seconds without a packet.
    pub idle: u32,
}

impl CtEntry {
    fn new(key: &Key, value: &Value, now: u32) -> Self {
        let socket = |address: V4, port: Be16| SocketAddr::new(IpAddr::V4(from_v4(address)), port.get());
        let (a, b) = (socket(key.a, key.a_port), socket(key.b, key.b_port));
        let (source, destination) = if value.flags.any(CtFlags::FROM_B) { (b, a) } else { (a, b) };
        let translated = value.flags.any(CtFlags::DNAT.with(CtFlags::REVNAT));
        Self {
            source,
            destination,
            protocol: key.protocol,
            state: CtState::of(value.original, value.reply),
            translated: translated.then(|| socket(value.nat_addr, value.nat_port)),
            idle: now.wrapping_sub(value.last_seen),
        }
    }
}

/// The tick that programs would store now.
pub(crate) fn now_tick() -> u32 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let nanoseconds = (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64);
    (nanoseconds >> TICK_SHIFT) as u32
}

/// The key of the entry that sees the other direction of a translated flow.
fn partner(key: &Key, value: &Value) -> Option<Key> {
    if !value.flags.any(CtFlags::DNAT.with(CtFlags::REVNAT)) {
        return None;
    }
    let (client, port) =
        if value.flags.any(CtFlags::FROM_B) { (key.b, key.b_port) } else { (key.a, key.a_port) };
    Some(CtKey::canonical(client, port, value.nat_addr, value.nat_port, key.protocol).0)
}

/// Keys of flows that have been idle for longer than their state allows.
#[must_use]
fn expired(entries: &HashMap<Key, Value>, timeouts: &Timeouts, now: u32) -> Vec<Key> {
    let idle = |value: &Value| now.wrapping_sub(value.last_seen).cast_signed().max(0).cast_unsigned();
    let is_expired = |key: &Key, value: &Value| {
        let Some(other) = partner(key, value) else {
            let state = CtState::of(value.original, value.reply);
            return idle(value) > timeouts.of(key.protocol, state);
        };
        let Some(twin) = entries.get(&other) else {
            // The other half was evicted: what it knew is lost, so assume the flow lives.
            return idle(value) > timeouts.of(key.protocol, CtState::Established);
        };
        let (original, reply) = if value.flags.any(CtFlags::DNAT) {
            (value.original, twin.reply)
        } else {
            (twin.original, value.reply)
        };
        idle(value).min(idle(twin)) > timeouts.of(key.protocol, CtState::of(original, reply))
    };
    entries.iter().filter(|(key, value)| is_expired(key, value)).map(|(key, _)| *key).collect()
}

fn read(map: &RawMap) -> Result<HashMap<Key, Value>, TableError> {
    map.entries::<Key, Value>().map(|rows| rows.into_iter().collect()).map_err(kernel_error)
}

fn kernel_error(source: std::io::Error) -> TableError {
    TableError::Kernel { table: maps::CONNTRACK4.name, source }
}

/// Every flow.
pub(crate) fn dump(map: &Arc<RawMap>) -> Result<Vec<CtEntry>, TableError> {
    let now = now_tick();
    Ok(read(map)?.iter().map(|(key, value)| CtEntry::new(key, value, now)).collect())
}

/// Removes expired flows. Each is looked at again right before it goes.
pub(crate) fn collect(map: &Arc<RawMap>, timeouts: &Timeouts) -> Result<GcReport, TableError> {
    let entries = read(map)?;
    let mut report = GcReport { seen: entries.len(), ..GcReport::default() };
    for key in expired(&entries, timeouts, now_tick()) {
        let unchanged = |key: &Key| -> Result<bool, TableError> {
            let now = map.get::<Key, Value>(key).map_err(kernel_error)?;
            Ok(now.is_none_or(|now| Some(now.last_seen) == entries.get(key).map(|then| then.last_seen)))
        };
        let twin = entries.get(&key).and_then(|value| partner(&key, value));
        let idle = unchanged(&key)? && twin.as_ref().map_or(Ok(true), unchanged)?;
        if !idle {
            report.revived += 1;
            continue;
        }
        map.delete(&key).map_err(kernel_error)?;
        report.removed += 1;
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use skep_abi::conntrack::TcpSeen;

    use super::*;

    const CLIENT: V4 = V4::new([10, 244, 0, 5]);
    const FRONTEND: V4 = V4::new([10, 96, 0, 1]);
    const BACKEND: V4 = V4::new([10, 244, 1, 7]);

    fn key(server: V4) -> (Key, CtFlags) {
        let (key, from_b) = CtKey::canonical(CLIENT, Be16::new(40_000), server, Be16::new(80), TCP);
        (key, if from_b { CtFlags::FROM_B } else { CtFlags::default() })
    }

    fn plain(original: TcpSeen, reply: TcpSeen, last_seen: u32) -> (Key, Value) {
        let (key, flags) = key(BACKEND);
        (key, Value { original, reply, last_seen, flags, ..Value::default() })
    }

    fn translated(up_seen: u32, down_seen: u32) -> HashMap<Key, Value> {
        let (up, up_flags) = key(FRONTEND);
        let (down, down_flags) = key(BACKEND);
        let value = Value { nat_port: Be16::new(80), ..Value::default() };
        let up_value = Value {
            nat_addr: BACKEND,
            original: TcpSeen::ANY,
            flags: up_flags.with(CtFlags::DNAT),
            last_seen: up_seen,
            ..value
        };
        let down_value = Value {
            nat_addr: FRONTEND,
            reply: TcpSeen::ANY,
            flags: down_flags.with(CtFlags::REVNAT),
            last_seen: down_seen,
            ..value
        };
        HashMap::from([(up, up_value), (down, down_value)])
    }

    #[test]
    fn an_established_connection_outlives_hours_of_silence() {
        let (key, value) = plain(TcpSeen::ANY, TcpSeen::ANY, 100);
        let entries = HashMap::from([(key, value)]);
        assert!(expired(&entries, &Timeouts::default(), 100 + 2 * 3600 + 600).is_empty());
    }

    #[test]
    fn closed_and_unanswered_connections_go_soon() {
        let fin = TcpSeen::ANY.with(TcpSeen::FIN);
        for (original, reply, after) in [(fin, fin, 11), (TcpSeen::ANY, TcpSeen::default(), 61)] {
            let (key, value) = plain(original, reply, 100);
            let entries = HashMap::from([(key, value)]);
            assert!(expired(&entries, &Timeouts::default(), 100 + after - 1).is_empty());
            assert_eq!(expired(&entries, &Timeouts::default(), 100 + after), vec![key]);
        }
    }

    #[test]
    fn the_halves_of_a_translated_flow_keep_each_other_alive() {
        let entries = translated(100, 5000);
        assert!(expired(&entries, &Timeouts::default(), 5000 + 8 * 3600).is_empty());
        assert_eq!(expired(&entries, &Timeouts::default(), 5001 + 8 * 3600).len(), 2);
    }

    #[test]
    fn half_a_flow_whose_twin_was_evicted_is_taken_for_established() {
        let mut entries = translated(100, 100);
        entries.remove(&key(BACKEND).0);
        assert!(expired(&entries, &Timeouts::default(), 100 + 3600).is_empty());
    }

    #[test]
    fn an_entry_stamped_after_the_look_is_never_expired() {
        let (key, value) = plain(TcpSeen::ANY, TcpSeen::default(), 200);
        assert!(expired(&HashMap::from([(key, value)]), &Timeouts::default(), 199).is_empty());
    }
}
