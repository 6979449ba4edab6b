//! Conntrack from user space: a dump, and garbage collection that takes no entry seen within its timeout.
//!
//! The decision is pure ([`expired`]); the clock is a parameter. A translated flow has two entries that each see one
//! direction; they live and die together, and each names the other ([`twin`]).

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use skep_abi::{
    Be16, TICK_SHIFT,
    conntrack::{CtFlags, CtKey, CtState, CtValue, TcpSeen},
};

use crate::{codec::Family, sys::RawMap, table::TableError};

const TCP: u8 = 6;
const ICMP: [u8; 2] = [1, 58];

/// How long an idle flow is remembered, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP without a reply yet.
    pub tcp_opening: u32,
    /// Established TCP: longer than the two hours after which hosts send keep-alives.
    pub tcp_established: u32,
    /// TCP with one side finished.
    pub tcp_half_closed: u32,
    /// TCP with both sides finished.
    pub tcp_closed: u32,
    /// TCP with a reset seen. Sequence numbers are not looked at, so the reset may be a forged one that its receiver
    /// ignored: longer than most keep-alives of applications.
    pub tcp_reset: u32,
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
            tcp_reset: 300,
            other_opening: 30,
            other_established: 180,
            icmp: 30,
        }
    }
}

impl Timeouts {
    fn of(&self, protocol: u8, original: TcpSeen, reply: TcpSeen) -> u32 {
        match (protocol, CtState::of(original, reply)) {
            (TCP, _) if original.any(TcpSeen::RST) || reply.any(TcpSeen::RST) => self.tcp_reset,
            (TCP, CtState::Opening) => self.tcp_opening,
            (TCP, CtState::Established) => self.tcp_established,
            (TCP, CtState::HalfClosed) => self.tcp_half_closed,
            (TCP, CtState::Closed) => self.tcp_closed,
            (icmp, _) if ICMP.contains(&icmp) => self.icmp,
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

impl GcReport {
    /// Both reports together.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            seen: self.seen + other.seen,
            removed: self.removed + other.removed,
            revived: self.revived + other.revived,
        }
    }
}

/// A flow, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtEntry {
    /// Who sent the first packet, as this entry sees it.
    pub source: SocketAddr,
    /// To whom it was addressed (of a translated flow: the frontend on one entry, the backend on the other).
    pub destination: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// State as far as this entry alone knows.
    pub state: CtState,
    /// Which half of a flow it is.
    pub half: CtHalf,
    /// Where the entry translates to: the backend for packets, the frontend for replies.
    pub translated: Option<SocketAddr>,
    /// With source translation: what the backend sees as the source, or, for replies, the client.
    pub peer: Option<SocketAddr>,
    /// Number of the set that translated the flow; zero without translation.
    pub set: u32,
    /// Seconds without a packet.
    pub idle: u32,
}

/// Which half of a flow an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtHalf {
    /// The whole flow: nothing is translated.
    Whole,
    /// Packets to a frontend.
    ToBackend,
    /// Replies of a backend.
    FromBackend,
    /// Packets to a frontend that another node answers directly.
    Forwarded,
}

impl CtEntry {
    fn new<A: Family>(key: &CtKey<A>, value: &CtValue<A>, now: u32) -> Self {
        let socket = |address: A, port: Be16| SocketAddr::new(address.to_ip(), port.get());
        let (source, destination) = ends(key, value);
        let half = if value.flags.any(CtFlags::DNAT) {
            CtHalf::ToBackend
        } else if value.flags.any(CtFlags::REVNAT) {
            CtHalf::FromBackend
        } else if value.flags.any(CtFlags::FORWARDED) {
            CtHalf::Forwarded
        } else {
            CtHalf::Whole
        };
        let snat = value.flags.any(CtFlags::SNAT);
        Self {
            source: socket(source.0, source.1),
            destination: socket(destination.0, destination.1),
            protocol: key.protocol,
            state: CtState::of(value.original, value.reply),
            half,
            translated: (half != CtHalf::Whole).then(|| socket(value.nat_addr, value.nat_port)),
            peer: snat.then(|| socket(value.peer_addr, value.peer_port)),
            set: value.set,
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

type End<A> = (A, Be16);

/// Who sent the first packet, and to whom.
pub(crate) fn ends<A: Family>(key: &CtKey<A>, value: &CtValue<A>) -> (End<A>, End<A>) {
    let (a, b) = ((key.a, key.a_port), (key.b, key.b_port));
    if value.flags.any(CtFlags::FROM_B) { (b, a) } else { (a, b) }
}

/// The key of the entry that sees the other direction of a translated flow. The entry alone says it: the other entry
/// has the same source (or, with source translation, the address that stands for it) and the translated destination.
pub(crate) fn twin<A: Family>(key: &CtKey<A>, value: &CtValue<A>) -> Option<CtKey<A>> {
    if !value.flags.any(CtFlags::DNAT.with(CtFlags::REVNAT)) {
        return None;
    }
    let (source, _) = ends(key, value);
    let snat = value.flags.any(CtFlags::SNAT);
    let (addr, port) = if snat { (value.peer_addr, value.peer_port) } else { source };
    Some(CtKey::canonical(addr, port, value.nat_addr, value.nat_port, key.protocol).0)
}

/// Every entry of a map.
pub(crate) type Flows<A> = HashMap<CtKey<A>, CtValue<A>>;

/// Keys of flows that have been idle for longer than their state allows.
#[must_use]
fn expired<A: Family>(entries: &Flows<A>, timeouts: &Timeouts, now: u32) -> Vec<CtKey<A>> {
    let idle = |value: &CtValue<A>| now.wrapping_sub(value.last_seen).cast_signed().max(0).cast_unsigned();
    let is_expired = |key: &CtKey<A>, value: &CtValue<A>| {
        let Some(other) = twin(key, value) else {
            return idle(value) > timeouts.of(key.protocol, value.original, value.reply);
        };
        let Some(twin) = entries.get(&other) else {
            // The other half was evicted: what it knew is lost, so assume the flow lives.
            return idle(value) > timeouts.of(key.protocol, TcpSeen::ANY, TcpSeen::ANY);
        };
        let (original, reply) = if value.flags.any(CtFlags::DNAT) {
            (value.original, twin.reply)
        } else {
            (twin.original, value.reply)
        };
        idle(value).min(idle(twin)) > timeouts.of(key.protocol, original, reply)
    };
    entries.iter().filter(|(key, value)| is_expired(key, value)).map(|(key, _)| *key).collect()
}

pub(crate) fn read<A: Family>(map: &RawMap) -> Result<Flows<A>, TableError> {
    let rows = map.entries::<CtKey<A>, CtValue<A>>().map_err(kernel_error::<A>)?;
    Ok(rows.into_iter().collect())
}

fn kernel_error<A: Family>(source: std::io::Error) -> TableError {
    TableError::Kernel { table: A::CONNTRACK.name, source }
}

/// Every flow.
pub(crate) fn dump<A: Family>(map: &Arc<RawMap>) -> Result<Vec<CtEntry>, TableError> {
    let now = now_tick();
    Ok(read::<A>(map)?.iter().map(|(key, value)| CtEntry::new(key, value, now)).collect())
}

/// Removes expired flows. Each is looked at again right before it goes.
pub(crate) fn collect<A: Family>(map: &Arc<RawMap>, timeouts: &Timeouts) -> Result<GcReport, TableError> {
    let entries = read::<A>(map)?;
    let mut report = GcReport { seen: entries.len(), ..GcReport::default() };
    for key in expired(&entries, timeouts, now_tick()) {
        let unchanged = |key: &CtKey<A>| -> Result<bool, TableError> {
            let now = map.get::<CtKey<A>, CtValue<A>>(key).map_err(kernel_error::<A>)?;
            Ok(now.is_none_or(|now| Some(now.last_seen) == entries.get(key).map(|then| then.last_seen)))
        };
        let other = entries.get(&key).and_then(|value| twin(&key, value));
        let idle = unchanged(&key)? && other.as_ref().map_or(Ok(true), unchanged)?;
        if !idle {
            report.revived += 1;
            continue;
        }
        map.delete(&key).map_err(kernel_error::<A>)?;
        report.removed += 1;
    }
    Ok(report)
}

/// A backend whose flows end now: it was removed, and its clients would go on talking to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutBackend {
    /// Only flows of this set; `None`: of every set.
    pub set: Option<u32>,
    /// Where it was.
    pub backend: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
}

impl CutBackend {
    /// Whether a flow of a set to this backend is meant.
    pub(crate) fn holds(&self, set: u32, backend: SocketAddr, protocol: u8) -> bool {
        self.protocol == protocol && self.backend == backend && self.set.is_none_or(|wanted| wanted == set)
    }
}

/// Both entries of every flow to one of the backends.
fn lost<A: Family>(entries: &Flows<A>, backends: &[CutBackend]) -> Vec<CtKey<A>> {
    let mut keys = Vec::new();
    for (key, value) in entries {
        let backend = if value.flags.any(CtFlags::DNAT.with(CtFlags::FORWARDED)) {
            (value.nat_addr, value.nat_port)
        } else if value.flags.any(CtFlags::REVNAT) {
            ends(key, value).1
        } else {
            continue;
        };
        let backend = SocketAddr::new(backend.0.to_ip(), backend.1.get());
        if backends.iter().any(|cut| cut.holds(value.set, backend, key.protocol)) {
            keys.push(*key);
        }
    }
    keys
}

/// Removes the flows to backends; says how many entries went.
pub(crate) fn cut<A: Family>(map: &Arc<RawMap>, backends: &[CutBackend]) -> Result<usize, TableError> {
    let keys = lost(&read::<A>(map)?, backends);
    for key in &keys {
        map.delete(key).map_err(kernel_error::<A>)?;
    }
    Ok(keys.len())
}

#[cfg(test)]
mod tests {
    use skep_abi::{V4, V6};

    use super::*;

    const CLIENT: V4 = V4::new([10, 244, 0, 5]);
    const FRONTEND: V4 = V4::new([10, 96, 0, 1]);
    const BACKEND: V4 = V4::new([10, 244, 1, 7]);

    fn key(server: V4) -> (CtKey<V4>, CtFlags) {
        let (key, from_b) = CtKey::canonical(CLIENT, Be16::new(40_000), server, Be16::new(80), TCP);
        (key, if from_b { CtFlags::FROM_B } else { CtFlags::default() })
    }

    fn plain(original: TcpSeen, reply: TcpSeen, last_seen: u32) -> (CtKey<V4>, CtValue<V4>) {
        let (key, flags) = key(BACKEND);
        (key, CtValue { original, reply, last_seen, flags, ..CtValue::default() })
    }

    fn translated(up_seen: u32, down_seen: u32) -> Flows<V4> {
        let (up, up_flags) = key(FRONTEND);
        let (down, down_flags) = key(BACKEND);
        let value = CtValue { nat_port: Be16::new(80), ..CtValue::default() };
        let up_value = CtValue {
            nat_addr: BACKEND,
            original: TcpSeen::ANY,
            flags: up_flags.with(CtFlags::DNAT),
            last_seen: up_seen,
            ..value
        };
        let down_value = CtValue {
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
    fn a_reset_that_may_be_forged_does_not_end_a_flow_at_once() {
        let reset = TcpSeen::ANY.with(TcpSeen::RST);
        let (key, value) = plain(reset, TcpSeen::ANY, 100);
        let entries = HashMap::from([(key, value)]);
        assert!(expired(&entries, &Timeouts::default(), 100 + 300).is_empty());
        assert_eq!(expired(&entries, &Timeouts::default(), 100 + 301), vec![key]);
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

    /// The two entries of a connection whose source is translated, too.
    fn snat<A: Family>(client: A, frontend: A, gateway: A, backend: A) -> [(CtKey<A>, CtValue<A>); 2] {
        let (web, from, nat) = (Be16::new(80), Be16::new(40_000), Be16::new(1024));
        let side = |from_b| if from_b { CtFlags::FROM_B } else { CtFlags::default() };
        let (up, up_from_b) = CtKey::canonical(client, from, frontend, web, TCP);
        let (down, down_from_b) = CtKey::canonical(gateway, nat, backend, web, TCP);
        let common = CtValue { set: 7, nat_port: web, last_seen: 100, ..CtValue::default() };
        let up_value = CtValue {
            nat_addr: backend,
            peer_addr: gateway,
            peer_port: nat,
            flags: side(up_from_b).with(CtFlags::DNAT).with(CtFlags::SNAT),
            ..common
        };
        let down_value = CtValue {
            nat_addr: frontend,
            peer_addr: client,
            peer_port: from,
            flags: side(down_from_b).with(CtFlags::REVNAT).with(CtFlags::SNAT),
            ..common
        };
        [(up, up_value), (down, down_value)]
    }

    fn v6(last: u8) -> V6 {
        let mut octets = [0; 16];
        (octets[0], octets[15]) = (0xfd, last);
        V6::new(octets)
    }

    #[test]
    fn either_half_of_a_flow_with_both_ends_translated_names_the_other() {
        let v4 = snat(CLIENT, FRONTEND, V4::new([10, 244, 0, 1]), BACKEND);
        assert_eq!(twin(&v4[0].0, &v4[0].1), Some(v4[1].0));
        assert_eq!(twin(&v4[1].0, &v4[1].1), Some(v4[0].0));
        let v6 = snat(v6(9), v6(1), v6(2), v6(7));
        assert_eq!(twin(&v6[0].0, &v6[0].1), Some(v6[1].0));
        assert_eq!(twin(&v6[1].0, &v6[1].1), Some(v6[0].0));
    }

    #[test]
    fn cutting_a_backend_takes_both_halves_of_its_flows_and_no_others() {
        let flows = snat(CLIENT, FRONTEND, V4::new([10, 244, 0, 1]), BACKEND);
        let entries = HashMap::from(flows);
        let cut = |set, last, protocol| CutBackend {
            set,
            backend: SocketAddr::from(([10, 244, 1, last], 80)),
            protocol,
        };
        assert_eq!(lost(&entries, &[cut(None, 7, TCP)]).len(), 2);
        assert_eq!(lost(&entries, &[cut(Some(7), 7, TCP)]).len(), 2);
        for other in [cut(Some(8), 7, TCP), cut(None, 8, TCP), cut(None, 7, 17)] {
            assert!(lost(&entries, &[other]).is_empty(), "{other:?}");
        }
    }

    #[test]
    fn a_flow_reads_as_its_client_sees_it_and_names_what_stands_for_it() {
        let [(key, value), _] = snat(CLIENT, FRONTEND, V4::new([10, 244, 0, 1]), BACKEND);
        let entry = CtEntry::new(&key, &value, 105);
        assert_eq!(entry.source, SocketAddr::from(([10, 244, 0, 5], 40_000)));
        assert_eq!(entry.destination, SocketAddr::from(([10, 96, 0, 1], 80)));
        assert_eq!(entry.translated, Some(SocketAddr::from(([10, 244, 1, 7], 80))));
        assert_eq!(entry.peer, Some(SocketAddr::from(([10, 244, 0, 1], 1024))));
        assert_eq!((entry.half, entry.set, entry.idle), (CtHalf::ToBackend, 7, 5));
    }
}
