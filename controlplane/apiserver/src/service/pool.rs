//! The ranges that addresses and ports come from. Picks at random, so that writers seldom meet, and leaves the low
//! part of an address range to those who choose their own.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use skep_model::{Address, Cidr, IpCidr, IpFamily};

/// A range that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Not a prefix of a usable size.
    #[error(
        "{0} is not an address range like 10.96.0.0/16 (12 to 28 bits) or fd00:96::/112 (64 to 124 bits)"
    )]
    Range(String),
    /// Not one range, nor one of each family.
    #[error("{0:?}: give one Service range, or one IPv4 and one IPv6 range separated by a comma")]
    Families(String),
}

/// A Service address range of one family.
#[derive(Debug, Clone)]
pub struct AddressPool {
    range: IpCidr,
    base: u128,
    size: u128,
}

impl AddressPool {
    /// Over a range; host bits are ignored.
    pub fn new(range: IpCidr) -> Result<Self, PoolError> {
        let (sizes, base) = match range {
            IpCidr::V4(range) => (12..=28, base(range)),
            IpCidr::V6(range) => (64..=124, base(range)),
        };
        if !sizes.contains(&range.length()) {
            return Err(PoolError::Range(range.to_string()));
        }
        Ok(Self { range, base, size: 1 << (range.family().bits() - range.length()) })
    }

    /// The ranges in a comma-separated list, the primary family's first.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, PoolError> {
        let parse = |part: &str| {
            let range = part.trim().parse().map_err(|_no_range| PoolError::Range(part.to_owned()))?;
            Self::new(range)
        };
        let pools: Vec<Self> = text.split(',').map(parse).collect::<Result<_, _>>()?;
        let dual = pools.len() == 2 && pools[0].family() != pools[1].family();
        if pools.len() == 1 || dual { Ok(pools) } else { Err(PoolError::Families(text.to_owned())) }
    }

    /// The range.
    pub fn cidr(&self) -> IpCidr {
        self.range
    }

    /// Its family.
    pub fn family(&self) -> IpFamily {
        self.range.family()
    }

    /// The first address, which the `kubernetes` Service has.
    pub fn first(&self) -> String {
        self.address(1).to_string()
    }

    /// Whether a Service may have this address: all but the network's own and, in IPv4, the broadcast address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let number = match address {
            IpAddr::V4(address) => address.to_number(),
            IpAddr::V6(address) => address.to_number(),
        };
        let offset = number.wrapping_sub(self.base);
        IpFamily::of(address) == self.family() && offset > 0 && offset <= self.last()
    }

    /// A free address: from the upper part while it lasts, then from the part meant for chosen ones.
    pub fn pick(&self, taken: impl Fn(&str) -> bool) -> Option<String> {
        let last = self.last();
        let reserved = (self.size / 16).clamp(16, 256).min(last);
        let free = |offset: u128| {
            let text = self.address(offset).to_string();
            (!taken(&text)).then_some(text)
        };
        scan(reserved + 1, last, free).or_else(|| scan(1, reserved, free))
    }

    fn last(&self) -> u128 {
        match self.family() {
            IpFamily::V4 => self.size - 2,
            IpFamily::V6 => self.size - 1,
        }
    }

    fn address(&self, offset: u128) -> IpAddr {
        match self.family() {
            IpFamily::V4 => std::net::Ipv4Addr::from_number(self.base + offset).into(),
            IpFamily::V6 => std::net::Ipv6Addr::from_number(self.base + offset).into(),
        }
    }
}

fn base<A: Address>(range: Cidr<A>) -> u128 {
    range.network().to_number()
}

/// Tries every number of a range once, beginning anywhere.
fn scan<T>(first: u128, last: u128, free: impl Fn(u128) -> Option<T>) -> Option<T> {
    if first > last {
        return None;
    }
    let start = rand::random_range(first..=last);
    (start..=last).chain(first..start).find_map(free)
}

/// The node port range.
#[derive(Debug, Clone)]
pub struct PortPool {
    range: RangeInclusive<u16>,
}

impl PortPool {
    /// Over a range.
    pub fn new(range: RangeInclusive<u16>) -> Self {
        Self { range }
    }

    /// The range.
    pub fn range(&self) -> &RangeInclusive<u16> {
        &self.range
    }

    /// Whether a Service may have this port.
    pub fn contains(&self, port: u16) -> bool {
        self.range.contains(&port)
    }

    /// A free port.
    pub fn pick(&self, taken: impl Fn(u16) -> bool) -> Option<u16> {
        let free = |port: u128| u16::try_from(port).ok().filter(|port| !taken(*port));
        scan(u128::from(*self.range.start()), u128::from(*self.range.end()), free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(range: &str) -> AddressPool {
        AddressPool::new(range.parse().unwrap()).unwrap()
    }

    #[test]
    fn leaves_the_low_band_to_chosen_addresses() {
        for (range, network, first) in
            [("10.96.0.0/16", "10.96.0.0", "10.96.0.1"), ("fd00:96::/112", "fd00:96::", "fd00:96::1")]
        {
            let number = |text: &str| match text.parse().unwrap() {
                IpAddr::V4(address) => address.to_number(),
                IpAddr::V6(address) => address.to_number(),
            };
            let pool = pool(range);
            for _ in 0..100 {
                assert!(number(&pool.pick(|_| false).unwrap()) - number(network) > 256);
            }
            assert_eq!(pool.first(), first);
        }
    }

    #[test]
    fn finds_the_last_free_address() {
        let pool = pool("10.0.0.0/28");
        assert_eq!(pool.pick(|a| a != "10.0.0.7"), Some("10.0.0.7".to_owned()));
        assert_eq!(pool.pick(|_| true), None);
    }

    #[test]
    fn network_and_broadcast_are_nobodys() {
        let v4 = pool("10.0.0.0/28");
        assert!(!v4.contains("10.0.0.0".parse().unwrap()));
        assert!(!v4.contains("10.0.0.15".parse().unwrap()));
        assert!(v4.contains("10.0.0.14".parse().unwrap()));
        assert!(!v4.contains("10.0.1.1".parse().unwrap()));
        let v6 = pool("fd00::/124");
        assert!(!v6.contains("fd00::".parse().unwrap()));
        assert!(v6.contains("fd00::f".parse().unwrap()));
        assert!(!v6.contains("fd00::10".parse().unwrap()) && !v6.contains("0.0.0.1".parse().unwrap()));
    }

    #[test]
    fn ranges_are_one_or_one_a_family() {
        let families = |text: &str| {
            AddressPool::parse_all(text)
                .map(|pools| pools.iter().map(AddressPool::family).collect::<Vec<_>>())
        };
        assert_eq!(families("fd00:96::/112, 10.96.0.0/16").unwrap(), [IpFamily::V6, IpFamily::V4]);
        assert_eq!(families("10.96.0.0/16").unwrap(), [IpFamily::V4]);
        for bad in [
            "",
            "10.96.0.0/16,10.97.0.0/16",
            "10.0.0.0/8",
            "fd00::/32",
            "a",
            "10.96.0.0/16,fd00:96::/112,fd00::/112",
        ] {
            assert!(families(bad).is_err(), "{bad}");
        }
    }
}
