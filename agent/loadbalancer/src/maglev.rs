//! Maglev tables: the same backends give the same table on every node, whatever order they became known in, and a
//! backend that comes or goes moves little of what the others have.
//!
//! The population of section 3.4 of "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016).
//! Permutations are seeded by a backend's address alone, and backends take turns in the order of their addresses.

use std::net::IpAddr;

use skep_model::Backend;

/// The sizes that a table can have: primes, each about double the one before.
pub const SIZES: [u16; 7] = [251, 509, 1021, 2039, 4093, 8191, 16381];

/// The size for this many backends: `configured`, or the next in [`SIZES`] with room for each.
#[must_use]
pub fn size_for(configured: u16, backends: usize) -> u16 {
    let fits = |size: &u16| *size >= configured && usize::from(*size) >= backends;
    SIZES.into_iter().find(fits).unwrap_or(configured)
}

/// The table of this many positions: the slot in `backends` that each position leads to. Empty without backends.
#[must_use]
pub fn table(backends: &[Backend], size: u16) -> Vec<u16> {
    let modulus = u64::from(size);
    if backends.is_empty() || modulus < 2 {
        return Vec::new();
    }
    let mut turns: Vec<Turn> =
        (0u16..).zip(backends).map(|(slot, backend)| Turn::new(slot, backend, modulus)).collect();
    turns.sort_unstable_by_key(|turn| turn.backend);
    let mut positions: Vec<Option<u16>> = vec![None; usize::from(size)];
    let mut free = positions.len();
    loop {
        for turn in &mut turns {
            let position = turn.take(&positions, modulus);
            positions[position] = Some(turn.slot);
            free -= 1;
            if free == 0 {
                return positions.into_iter().flatten().collect();
            }
        }
    }
}

/// A backend's walk through the positions in its own order of preference.
struct Turn {
    backend: Backend,
    slot: u16,
    next: u64,
    skip: u64,
}

impl Turn {
    fn new(slot: u16, backend: &Backend, modulus: u64) -> Self {
        let (first, second) = (hash(backend, 0x9e37_79b9_7f4a_7c15), hash(backend, 0xc2b2_ae3d_27d4_eb4f));
        Turn { backend: *backend, slot, next: first % modulus, skip: second % (modulus - 1) + 1 }
    }

    /// The first free position in the backend's order. The order visits every position, for the size is prime.
    fn take(&mut self, positions: &[Option<u16>], modulus: u64) -> usize {
        loop {
            let position = usize::try_from(self.next).unwrap_or(0);
            self.next = (self.next + self.skip) % modulus;
            if positions[position].is_none() {
                return position;
            }
        }
    }
}

/// FNV-1a over address and port, finished as murmur3 does: stable over versions and machines.
fn hash(backend: &Backend, seed: u64) -> u64 {
    let address = match backend.ip {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let bytes = address.into_iter().chain(backend.port.get().to_be_bytes());
    let mut value = bytes.fold(0xcbf2_9ce4_8422_2325 ^ seed, |value, byte| {
        (value ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    value = (value ^ (value >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    value = (value ^ (value >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ (value >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use skep_model::{Port, Protocol};

    use super::*;

    fn backend(n: u32) -> Backend {
        Backend { ip: IpAddr::from(n.to_be_bytes()), port: Port::new(80).unwrap(), protocol: Protocol::Tcp }
    }

    fn addresses(backends: &[Backend], size: u16) -> Vec<Backend> {
        table(backends, size).into_iter().map(|slot| backends[usize::from(slot)]).collect()
    }

    #[test]
    fn the_table_of_known_backends_never_changes() {
        let backends = [backend(1), backend(2), backend(3)];
        let first: Vec<u16> = table(&backends, 251).into_iter().take(16).collect();
        assert_eq!(
            first,
            [2, 1, 2, 1, 1, 1, 2, 2, 1, 2, 2, 0, 1, 1, 2, 1],
            "nodes of two versions would disagree"
        );
    }

    #[test]
    fn more_backends_than_positions_get_a_larger_table() {
        assert_eq!(size_for(1021, 3), 1021);
        assert_eq!(size_for(1021, 1022), 2039);
        assert_eq!(size_for(1021, 60_000), 1021);
        assert!(table(&[], 251).is_empty());
    }

    fn some_backends() -> impl Strategy<Value = Vec<Backend>> {
        proptest::collection::btree_set(any::<u32>(), 2..12)
            .prop_map(|numbers: BTreeSet<u32>| numbers.into_iter().map(backend).collect())
    }

    proptest! {
        #[test]
        fn every_backend_gets_its_share_in_any_order(backends in some_backends(), rotation in 0usize..12) {
            let straight = addresses(&backends, 1021);
            let mut turned = backends.clone();
            turned.rotate_left(rotation % backends.len());
            turned.swap(0, backends.len() - 1);
            prop_assert_eq!(&addresses(&turned, 1021), &straight);
            for backend in &backends {
                let share = straight.iter().filter(|held| *held == backend).count();
                let fair = 1021 / backends.len();
                prop_assert!(share == fair || share == fair + 1);
            }
        }

        #[test]
        fn a_backend_that_goes_leaves_most_of_the_others_where_they_are(
            backends in some_backends(), gone in 0usize..12,
        ) {
            let moved = moved_by_removal(&backends, gone % backends.len());
            prop_assert!(moved * 3 <= 1021, "{moved} of 1021 positions moved");
        }
    }

    /// Positions that lead elsewhere without a backend, those that led to it left out.
    fn moved_by_removal(backends: &[Backend], gone: usize) -> usize {
        let before = addresses(backends, 1021);
        let mut left = backends.to_vec();
        let gone = left.remove(gone);
        let after = addresses(&left, 1021);
        before.iter().zip(&after).filter(|(was, is)| **was != gone && was != is).count()
    }

    #[test]
    fn on_average_a_removal_moves_a_few_in_a_hundred() {
        for count in [2u32, 3, 5, 10, 20] {
            let runs = 50;
            let moved: usize = (0..runs)
                .map(|run| {
                    let backends: Vec<Backend> =
                        (0..count).map(|n| backend(0x0af4_0002 + run * 7919 + n * 257)).collect();
                    moved_by_removal(&backends, 0)
                })
                .sum();
            let percent = moved * 100 / (runs as usize * 1021);
            assert!(percent <= 5, "{percent} % of the positions moved with {count} backends");
        }
    }
}
