//! One range of one family: next-fit allocation with reserved addresses and a quarantine.
//!
//! Next-fit (go on after the last address given out) keeps an address unused for as long as possible, so that caches
//! elsewhere forget its old holder first; the quarantine gives that a lower bound.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use skep_model::{Address, Cidr, IpFamily};

/// Seconds since the Unix epoch. A wall clock, because quarantine outlives the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixSeconds(pub u64);

/// Addresses of one range. `taken` may hold addresses outside the range, left from a range that the node had before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool<A: Address> {
    range: Cidr<A>,
    taken: BTreeSet<A>,
    quarantine: BTreeMap<A, UnixSeconds>,
    last: Option<A>,
}

impl<A: Address> Pool<A> {
    /// An empty pool.
    #[must_use]
    pub fn new(range: Cidr<A>) -> Self {
        Pool { range, taken: BTreeSet::new(), quarantine: BTreeMap::new(), last: None }
    }

    /// The range that new addresses come from.
    #[must_use]
    pub fn range(&self) -> Cidr<A> {
        self.range
    }

    /// The node's own address in the range: the first after the network address.
    #[must_use]
    pub fn gateway(&self) -> Option<A> {
        self.range.nth(1)
    }

    /// Gives out an address that is neither reserved, taken nor in quarantine.
    pub fn allocate(&mut self, now: UnixSeconds) -> Option<A> {
        self.end_quarantine(now);
        let (low, high) = self.usable()?;
        let start = self.last.and_then(|last| self.range.offset_of(last)).map_or(low, |last| last + 1);
        let start = if start > high { low } else { start };
        let address = self.first_free(start, high).or_else(|| self.first_free(low, start.checked_sub(1)?))?;
        self.taken.insert(address);
        self.last = Some(address);
        Some(address)
    }

    /// Marks an address as taken, as when reading it back; false when it was taken already.
    pub fn claim(&mut self, address: A) -> bool {
        self.quarantine.remove(&address);
        self.taken.insert(address)
    }

    /// Takes an address back and keeps it unused until `until`; false when nobody held it.
    pub fn release(&mut self, address: A, until: UnixSeconds) -> bool {
        let held = self.taken.remove(&address);
        if held && self.range.contains(address) {
            self.quarantine.insert(address, until);
        }
        held
    }

    /// Keeps an unused address unused until `until`, as when reading it back.
    pub fn hold_back(&mut self, address: A, until: UnixSeconds) {
        if self.range.contains(address) && !self.taken.contains(&address) {
            self.quarantine.insert(address, until);
        }
    }

    /// Continues after `address`, as when reading it back.
    pub fn resume_after(&mut self, address: A) {
        self.last = Some(address);
    }

    /// The address given out last.
    #[must_use]
    pub fn last(&self) -> Option<A> {
        self.last
    }

    /// Addresses in quarantine and when each leaves it.
    pub fn quarantined(&self) -> impl Iterator<Item = (A, UnixSeconds)> {
        self.quarantine.iter().map(|(&address, &until)| (address, until))
    }

    /// How many addresses could be given out if nothing were in quarantine.
    #[must_use]
    pub fn free(&self) -> u128 {
        let Some((low, high)) = self.usable() else { return 0 };
        let taken = self.taken.iter().filter(|&&address| self.range.contains(address)).count();
        (high - low + 1).saturating_sub(taken as u128)
    }

    fn end_quarantine(&mut self, now: UnixSeconds) {
        self.quarantine.retain(|_, until| *until > now);
    }

    fn first_free(&self, low: u128, high: u128) -> Option<A> {
        let mut offset = low;
        while offset <= high {
            let address = self.range.nth(offset)?;
            if !self.taken.contains(&address) && !self.quarantine.contains_key(&address) {
                return Some(address);
            }
            offset += 1;
        }
        None
    }

    /// First and last offset for pods: network address and gateway are reserved, and IPv4's broadcast address.
    fn usable(&self) -> Option<(u128, u128)> {
        let high = match A::FAMILY {
            IpFamily::V4 => self.range.span().checked_sub(1)?,
            IpFamily::V6 => self.range.span(),
        };
        (high >= 2).then_some((2, high))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const QUARANTINE: u64 = 30;

    fn pool(text: &str) -> Pool<Ipv4Addr> {
        Pool::new(text.parse().unwrap())
    }

    #[test]
    fn network_gateway_and_broadcast_are_never_given_out() {
        let mut pool = pool("10.0.0.0/29");
        let given: Vec<_> =
            std::iter::from_fn(|| pool.allocate(UnixSeconds(0))).map(|a| a.octets()[3]).collect();
        assert_eq!(given, [2, 3, 4, 5, 6]);
        assert_eq!(pool.free(), 0);
    }

    #[test]
    fn ranges_too_small_for_a_pod_give_nothing() {
        for range in ["10.0.0.0/30", "10.0.0.0/31", "10.0.0.0/32"] {
            let mut pool = pool(range);
            let expected = usize::from(range.ends_with("/30"));
            assert_eq!(std::iter::from_fn(|| pool.allocate(UnixSeconds(0))).count(), expected, "{range}");
        }
    }

    #[test]
    fn a_freed_address_rests_before_it_is_reused() {
        let mut pool = pool("10.0.0.0/30");
        let only = pool.allocate(UnixSeconds(0)).unwrap();
        assert!(pool.release(only, UnixSeconds(30)));
        assert_eq!(pool.allocate(UnixSeconds(29)), None);
        assert_eq!(pool.allocate(UnixSeconds(30)), Some(only));
    }

    #[test]
    fn allocation_moves_on_before_it_wraps() {
        let mut pool = pool("10.0.0.0/24");
        let first = pool.allocate(UnixSeconds(0)).unwrap();
        pool.release(first, UnixSeconds(0));
        assert_ne!(pool.allocate(UnixSeconds(10)), Some(first));
    }

    #[test]
    fn a_range_of_two_to_the_64_costs_what_is_used_of_it() {
        let mut pool: Pool<std::net::Ipv6Addr> = Pool::new("fd00:244:0:1::/64".parse().unwrap());
        let first = pool.allocate(UnixSeconds(0)).unwrap();
        assert_eq!(first, "fd00:244:0:1::2".parse::<std::net::Ipv6Addr>().unwrap());
        assert_eq!(pool.free(), (1 << 64) - 3);
        let last = "fd00:244:0:1:ffff:ffff:ffff:ffff".parse().unwrap();
        pool.resume_after(last);
        assert!(pool.claim(last));
        assert_eq!(pool.allocate(UnixSeconds(0)), Some("fd00:244:0:1::3".parse().unwrap()));
        assert_eq!(pool.gateway(), Some("fd00:244:0:1::1".parse().unwrap()));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Allocate,
        Release(u8),
        Wait(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Allocate),
            2 => any::<u8>().prop_map(Step::Release),
            1 => any::<u8>().prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// The naive model: a set of usable addresses, a set of taken ones, and a resting time for each.
        #[test]
        fn equals_the_naive_model(steps in proptest::collection::vec(step(), 0..200)) {
            let mut pool = pool("10.0.0.0/28");
            let usable: BTreeSet<u8> = (2..=14).collect();
            let mut taken = BTreeSet::new();
            let mut resting = std::collections::BTreeMap::new();
            let mut now = 0u64;
            for step in steps {
                match step {
                    Step::Allocate => {
                        let free: BTreeSet<u8> = usable
                            .iter()
                            .copied()
                            .filter(|n| !taken.contains(n) && resting.get(n).is_none_or(|&until| until <= now))
                            .collect();
                        match pool.allocate(UnixSeconds(now)) {
                            Some(address) => {
                                prop_assert!(free.contains(&address.octets()[3]));
                                taken.insert(address.octets()[3]);
                            }
                            None => prop_assert!(free.is_empty()),
                        }
                    }
                    Step::Release(n) => {
                        let n = n % 16;
                        let held = pool.release(Ipv4Addr::new(10, 0, 0, n), UnixSeconds(now + QUARANTINE));
                        prop_assert_eq!(held, taken.remove(&n));
                        if held {
                            resting.insert(n, now + QUARANTINE);
                        }
                    }
                    Step::Wait(seconds) => now += u64::from(seconds),
                }
                prop_assert_eq!(pool.free(), (usable.len() - taken.len()) as u128);
            }
        }
    }
}
