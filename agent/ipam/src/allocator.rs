//! The addresses of a node's attachments, in up to two families, all or nothing.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};
use skep_model::{Address, Cidr, Cidr4, Cidr6, IpCidr};

use crate::{
    pool::{Pool, UnixSeconds},
    state::{RestingAddress, State},
};

/// Why no address was given out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// The node has no range yet.
    #[error("this node has no pod range yet: spec.podCIDRs of its Node object is empty")]
    NoRange,
    /// Every address of the range is taken or rests after use.
    #[error(
        "the pod range {range} is exhausted: {resting} of its addresses rest after use and come back within seconds; \
         give nodes larger ranges if this persists"
    )]
    Exhausted {
        /// The range.
        range: IpCidr,
        /// Addresses in quarantine.
        resting: usize,
    },
}

/// What holds an address: one interface of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentKey {
    /// The runtime's sandbox id.
    pub container_id: String,
    /// Interface name inside the sandbox.
    pub ifname: String,
}

/// What is known of an attachment besides its addresses; enough to remove it without asking anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// Path of the network namespace.
    pub netns: String,
    /// Namespace of the pod.
    pub pod_namespace: String,
    /// Name of the pod.
    pub pod_name: String,
    /// UID of the pod; empty when the runtime did not say.
    #[serde(default)]
    pub pod_uid: String,
}

/// An attachment with its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// Who holds the addresses.
    pub attachment: Attachment,
    /// IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v4: Option<Ipv4Addr>,
    /// IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<Ipv6Addr>,
}

impl Allocation {
    /// The addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }
}

/// The allocator of one node.
#[derive(Clone, Debug)]
pub struct Allocator {
    v4: Option<Pool<Ipv4Addr>>,
    v6: Option<Pool<Ipv6Addr>>,
    allocations: BTreeMap<AttachmentKey, Allocation>,
    quarantine_seconds: u64,
}

impl Allocator {
    /// An allocator that continues from `state`. Ranges come later, by [`Allocator::set_ranges`].
    #[must_use]
    pub fn restore(state: State, ranges: &[IpCidr], quarantine_seconds: u64) -> Self {
        let mut allocator =
            Allocator { v4: None, v6: None, allocations: state.allocations, quarantine_seconds };
        allocator.set_ranges(ranges);
        for resting in state.quarantine {
            match resting.address {
                IpAddr::V4(address) => hold_back(&mut allocator.v4, address, resting.until),
                IpAddr::V6(address) => hold_back(&mut allocator.v6, address, resting.until),
            }
        }
        if let (Some(pool), Some(last)) = (&mut allocator.v4, state.last_v4) {
            pool.resume_after(last);
        }
        if let (Some(pool), Some(last)) = (&mut allocator.v6, state.last_v6) {
            pool.resume_after(last);
        }
        allocator
    }

    /// Takes the node's ranges, the first of each family. Addresses held from an earlier range stay with their holders.
    pub fn set_ranges(&mut self, ranges: &[IpCidr]) {
        let v4 = ranges.iter().find_map(|range| match range {
            IpCidr::V4(range) => Some(*range),
            IpCidr::V6(_) => None,
        });
        let v6 = ranges.iter().find_map(|range| match range {
            IpCidr::V6(range) => Some(*range),
            IpCidr::V4(_) => None,
        });
        set_range(&mut self.v4, v4, self.allocations.values().filter_map(|held| held.v4));
        set_range(&mut self.v6, v6, self.allocations.values().filter_map(|held| held.v6));
    }

    /// The node's IPv4 range.
    #[must_use]
    pub fn range_v4(&self) -> Option<Cidr4> {
        self.v4.as_ref().map(Pool::range)
    }

    /// The node's IPv6 range.
    #[must_use]
    pub fn range_v6(&self) -> Option<Cidr6> {
        self.v6.as_ref().map(Pool::range)
    }

    /// Addresses for an attachment; the same ones when it has some already.
    pub fn allocate(
        &mut self,
        key: &AttachmentKey,
        attachment: Attachment,
        now: UnixSeconds,
    ) -> Result<Allocation, IpamError> {
        if let Some(held) = self.allocations.get_mut(key) {
            held.attachment = attachment;
            return Ok(held.clone());
        }
        if self.v4.is_none() && self.v6.is_none() {
            return Err(IpamError::NoRange);
        }
        let v4 = self.v4.as_mut().map(|pool| take(pool, now)).transpose()?;
        let v6 = match self.v6.as_mut().map(|pool| take(pool, now)).transpose() {
            Ok(v6) => v6,
            Err(error) => {
                // Never used, so nobody can know it: no quarantine.
                give_back(&mut self.v4, v4, now);
                return Err(error);
            }
        };
        let allocation = Allocation { attachment, v4, v6 };
        self.allocations.insert(key.clone(), allocation.clone());
        Ok(allocation)
    }

    /// Ends an attachment; its addresses rest for the quarantine. `None` when it held nothing.
    pub fn release(&mut self, key: &AttachmentKey, now: UnixSeconds) -> Option<Allocation> {
        let allocation = self.allocations.remove(key)?;
        let until = UnixSeconds(now.0.saturating_add(self.quarantine_seconds));
        give_back(&mut self.v4, allocation.v4, until);
        give_back(&mut self.v6, allocation.v6, until);
        Some(allocation)
    }

    /// The attachment's addresses.
    #[must_use]
    pub fn get(&self, key: &AttachmentKey) -> Option<&Allocation> {
        self.allocations.get(key)
    }

    /// Every attachment.
    pub fn iter(&self) -> impl Iterator<Item = (&AttachmentKey, &Allocation)> {
        self.allocations.iter()
    }

    /// How many pods could still get an address of every family.
    #[must_use]
    pub fn free(&self) -> u128 {
        let v4 = self.v4.as_ref().map(Pool::free);
        let v6 = self.v6.as_ref().map(Pool::free);
        v4.into_iter().chain(v6).min().unwrap_or(0)
    }

    /// What must survive a crash.
    #[must_use]
    pub fn state(&self) -> State {
        State {
            allocations: self.allocations.clone(),
            quarantine: resting(self.v4.as_ref()).chain(resting(self.v6.as_ref())).collect(),
            last_v4: self.v4.as_ref().and_then(Pool::last),
            last_v6: self.v6.as_ref().and_then(Pool::last),
        }
    }
}

fn set_range<A: Address>(pool: &mut Option<Pool<A>>, range: Option<Cidr<A>>, held: impl Iterator<Item = A>) {
    if pool.as_ref().map(Pool::range) == range {
        return;
    }
    *pool = range.map(|range| {
        let mut pool = Pool::new(range);
        for address in held {
            pool.claim(address);
        }
        pool
    });
}

fn take<A: Address>(pool: &mut Pool<A>, now: UnixSeconds) -> Result<A, IpamError> {
    pool.allocate(now).ok_or_else(|| {
        let range = pool.range();
        let network: IpAddr = range.network().into();
        IpamError::Exhausted {
            range: IpCidr::new(network, range.length()).unwrap_or(IpCidr::host(network)),
            resting: pool.quarantined().count(),
        }
    })
}

fn give_back<A: Address>(pool: &mut Option<Pool<A>>, address: Option<A>, until: UnixSeconds) {
    if let (Some(pool), Some(address)) = (pool, address) {
        pool.release(address, until);
    }
}

fn hold_back<A: Address>(pool: &mut Option<Pool<A>>, address: A, until: UnixSeconds) {
    if let Some(pool) = pool {
        pool.hold_back(address, until);
    }
}

fn resting<A: Address>(pool: Option<&Pool<A>>) -> impl Iterator<Item = RestingAddress> {
    pool.into_iter()
        .flat_map(Pool::quarantined)
        .map(|(address, until)| RestingAddress { address: address.into(), until })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(id: u8) -> AttachmentKey {
        AttachmentKey { container_id: format!("c{id}"), ifname: "eth0".into() }
    }

    fn allocator(ranges: &[&str]) -> Allocator {
        let ranges: Vec<IpCidr> = ranges.iter().map(|range| range.parse().unwrap()).collect();
        Allocator::restore(State::default(), &ranges, 30)
    }

    fn allocate(allocator: &mut Allocator, id: u8, now: u64) -> Result<Allocation, IpamError> {
        allocator.allocate(&key(id), Attachment::default(), UnixSeconds(now))
    }

    #[test]
    fn asking_twice_gives_the_same_address() {
        let mut allocator = allocator(&["10.0.0.0/24", "fd00::/112"]);
        let first = allocate(&mut allocator, 1, 0).unwrap();
        assert_eq!(first.addresses().count(), 2);
        assert_eq!(allocate(&mut allocator, 1, 5).unwrap(), first);
    }

    #[test]
    fn a_node_without_ranges_says_so() {
        assert_eq!(allocate(&mut allocator(&[]), 1, 0), Err(IpamError::NoRange));
    }

    #[test]
    fn exhaustion_of_one_family_takes_nothing_of_the_other() {
        let mut allocator = allocator(&["10.0.0.0/24", "fd00::/126"]);
        assert!(allocate(&mut allocator, 1, 0).is_ok());
        assert!(allocate(&mut allocator, 2, 0).is_ok());
        let before = allocator.v4.as_ref().map(Pool::free);
        assert!(matches!(allocate(&mut allocator, 3, 0), Err(IpamError::Exhausted { resting: 0, .. })));
        assert_eq!(allocator.v4.as_ref().map(Pool::free), before);
    }

    #[test]
    fn a_new_range_leaves_old_addresses_with_their_holders() {
        let mut allocator = allocator(&["10.0.0.0/24"]);
        let old = allocate(&mut allocator, 1, 0).unwrap();
        allocator.set_ranges(&["10.0.1.0/24".parse().unwrap()]);
        assert_eq!(allocate(&mut allocator, 1, 0).unwrap(), old);
        assert!(
            allocate(&mut allocator, 2, 0).unwrap().v4.unwrap() > "10.0.1.0".parse::<Ipv4Addr>().unwrap()
        );
    }

    proptest! {
        /// No address is ever held twice, retries and restarts change nothing, and quarantine is kept.
        #[test]
        fn restarts_never_double_an_address(steps in proptest::collection::vec((0u8..4, 0u8..12), 0..120)) {
            let mut allocator = allocator(&["10.0.0.0/28"]);
            let mut held: BTreeMap<u8, Ipv4Addr> = BTreeMap::new();
            let mut freed: BTreeMap<Ipv4Addr, u64> = BTreeMap::new();
            for (now, (kind, id)) in steps.into_iter().enumerate() {
                let now = now as u64;
                match kind {
                    0 | 1 => match allocate(&mut allocator, id, now) {
                        Ok(allocation) => {
                            let address = allocation.v4.unwrap();
                            if let Some(&before) = held.get(&id) {
                                prop_assert_eq!(before, address);
                            } else {
                                prop_assert!(held.values().all(|&other| other != address));
                                prop_assert!(freed.get(&address).is_none_or(|&at| now >= at + 30));
                                held.insert(id, address);
                            }
                        }
                        Err(error) => {
                            let exhausted = matches!(error, IpamError::Exhausted { .. });
                            prop_assert!(exhausted);
                        }
                    },
                    2 => {
                        let released = allocator.release(&key(id), UnixSeconds(now));
                        prop_assert_eq!(released.and_then(|allocation| allocation.v4), held.remove(&id));
                        prop_assert!(allocator.release(&key(id), UnixSeconds(now)).is_none());
                        for (address, until) in allocator.v4.as_ref().unwrap().quarantined() {
                            freed.insert(address, until.0 - 30);
                        }
                    }
                    _ => {
                        let text = serde_json::to_string(&allocator.state()).unwrap();
                        let ranges = ["10.0.0.0/28".parse().unwrap()];
                        allocator = Allocator::restore(serde_json::from_str(&text).unwrap(), &ranges, 30);
                    }
                }
            }
        }
    }
}
