//! Rows of older layouts, as bytes: what a pinned map of an earlier version becomes in today's.
//!
//! Each conversion stays for as long as an upgrade from that version is supported. A layout that is not named here makes
//! the table be built anew.

use skep_abi::{
    Be16, CtValue, Peer, PeerFlags, Plain, ServiceFlags, ServiceValue, TcpSeen, V4, V6,
    conntrack::legacy::LegacyCtValue,
    maps::{self, MapSpec},
};

use crate::sys::MapFacts;

/// Turns the bytes of an old value into those of today's.
pub(crate) type Conversion = fn(&[u8]) -> Option<Vec<u8>>;

/// The conversion from a pinned map of this layout, if there is one.
pub(crate) fn conversion(spec: &MapSpec, found: MapFacts) -> Option<Conversion> {
    if found.key != spec.key {
        return None;
    }
    if found.value == spec.value {
        return Some(|value| Some(value.to_vec()));
    }
    let known: Conversion = match (spec.name, found.value) {
        (name, 20) if name == maps::CONNTRACK4.name => flow,
        (name, 8) if name == maps::SERVICES4.name => frontend,
        (name, 12) if name == maps::IPCACHE4.name => peer,
        _ => return None,
    };
    Some(known)
}

fn bytes<T: Plain>(value: &T) -> Vec<u8> {
    // SAFETY: plain data: every byte is initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }.to_vec()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Conntrack before source translation.
fn flow(old: &[u8]) -> Option<Vec<u8>> {
    let old = LegacyCtValue {
        last_seen: u32_at(old, 0)?,
        service: u32_at(old, 4)?,
        nat_addr: V4::from_raw(u32_at(old, 8)?),
        nat_port: Be16::from_raw(u16_at(old, 12)?),
        original: TcpSeen(*old.get(14)?),
        reply: TcpSeen(*old.get(15)?),
        flags: *old.get(16)?,
        pad: [0; 3],
    };
    Some(bytes(&CtValue::<V4>::from(old)))
}

/// Frontends before scopes, affinity and Maglev: a number, a count and flags that were never set.
fn frontend(old: &[u8]) -> Option<Vec<u8>> {
    let value = ServiceValue {
        set: u32_at(old, 0)?,
        count: u16_at(old, 4)?,
        flags: ServiceFlags::default(),
        ..ServiceValue::default()
    };
    Some(bytes(&value))
}

/// The ipcache when tunnels ran over IPv4 only.
fn peer(old: &[u8]) -> Option<Vec<u8>> {
    let node = match u32_at(old, 0)? {
        0 => V6::default(),
        raw => V6::from_mapped(V4::from_raw(raw)),
    };
    Some(bytes(&Peer { node, class: u32_at(old, 4)?, flags: PeerFlags(u32_at(old, 8)?) }))
}

#[cfg(test)]
mod tests {
    use skep_abi::CtFlags;

    use super::*;

    fn facts(key: u32, value: u32) -> MapFacts {
        MapFacts { key, value, ..MapFacts::default() }
    }

    #[test]
    fn a_flow_of_an_older_agent_keeps_its_translation() {
        let mut old = vec![7, 0, 0, 0, 3, 0, 0, 0, 10, 244, 1, 9, 0, 80, 1, 17, 2, 0, 0, 0];
        old[16] = 3;
        let convert = conversion(&maps::CONNTRACK4, facts(16, 20)).unwrap();
        let new = convert(&old).unwrap();
        let expected = CtValue {
            last_seen: 7,
            set: 3,
            nat_addr: V4::new([10, 244, 1, 9]),
            nat_port: Be16::new(80),
            original: TcpSeen::ANY,
            reply: TcpSeen::ANY.with(TcpSeen::MORE),
            flags: CtFlags::FROM_B.with(CtFlags::DNAT),
            ..CtValue::default()
        };
        assert_eq!(new, bytes(&expected));
    }

    #[test]
    fn peers_and_frontends_of_an_older_agent_mean_the_same() {
        let convert = conversion(&maps::IPCACHE4, facts(8, 12)).unwrap();
        let remote = convert(&[10, 89, 0, 12, 2, 0, 0, 0, 2, 0, 0, 0]).unwrap();
        let node = V6::from_mapped(V4::new([10, 89, 0, 12]));
        assert_eq!(remote, bytes(&Peer { node, class: 2, flags: PeerFlags::REMOTE_NODE }));
        let own = convert(&[0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]).unwrap();
        assert_eq!(own, bytes(&Peer { node: V6::default(), class: 1, flags: PeerFlags::HOST }));
        let convert = conversion(&maps::SERVICES4, facts(8, 8)).unwrap();
        let value = ServiceValue { set: 9, count: 2, ..ServiceValue::default() };
        assert_eq!(convert(&[9, 0, 0, 0, 2, 0, 0, 0]).unwrap(), bytes(&value));
    }

    #[test]
    fn other_layouts_are_not_guessed_at() {
        assert!(conversion(&maps::CONNTRACK4, facts(16, 22)).is_none());
        assert!(conversion(&maps::CONNTRACK4, facts(12, 24)).is_none());
        assert!(conversion(&maps::BACKENDS4, facts(8, 8)).is_some());
    }
}
