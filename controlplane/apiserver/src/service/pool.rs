//! The ranges that addresses and ports come from. Picks at random, so that writers seldom meet, and leaves the low
//! part of the address range to those who choose their own.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

/// A range that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Not an IPv4 prefix of 12 to 28 bits.
    #[error("{0} is not an IPv4 range like 10.96.0.0/16 with 12 to 28 bits")]
    Range(String),
}

/// The service address range.
#[derive(Debug, Clone)]
pub struct AddressPool {
    cidr: String,
    base: u32,
    size: u32,
}

impl AddressPool {
    /// Parses the range.
    pub fn new(cidr: &str) -> Result<Self, PoolError> {
        let bad = || PoolError::Range(cidr.to_owned());
        let (address, bits) = cidr.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_not_an_address| bad())?;
        let bits: u32 = bits.parse().map_err(|_not_a_number| bad())?;
        if !(12..=28).contains(&bits) {
            return Err(bad());
        }
        let size = 1 << (32 - bits);
        let base = u32::from(address) & !(size - 1);
        Ok(Self { cidr: cidr.to_owned(), base, size })
    }

    /// The range as it was written.
    pub fn cidr(&self) -> &str {
        &self.cidr
    }

    /// The first address, which the `kubernetes` Service has.
    pub fn first(&self) -> String {
        Ipv4Addr::from(self.base + 1).to_string()
    }

    /// Whether a Service may have this address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        let offset = u32::from(address).wrapping_sub(self.base);
        offset > 0 && offset < self.size - 1
    }

    /// A free address: from the upper part while it lasts, then from the part meant for chosen ones.
    pub fn pick(&self, taken: impl Fn(&str) -> bool) -> Option<String> {
        let last = self.size - 2;
        let reserved = (self.size / 16).clamp(16, 256).min(last);
        let free = |offset: u32| {
            let text = Ipv4Addr::from(self.base + offset).to_string();
            (!taken(&text)).then_some(text)
        };
        scan(reserved + 1, last, free).or_else(|| scan(1, reserved, free))
    }
}

/// Tries every number of a range once, beginning anywhere.
fn scan<T>(first: u32, last: u32, free: impl Fn(u32) -> Option<T>) -> Option<T> {
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
        let free = |port: u32| u16::try_from(port).ok().filter(|port| !taken(*port));
        scan(u32::from(*self.range.start()), u32::from(*self.range.end()), free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_the_low_band_to_chosen_addresses() {
        let pool = AddressPool::new("10.96.0.0/16").unwrap();
        for _ in 0..100 {
            let picked: Ipv4Addr = pool.pick(|_| false).unwrap().parse().unwrap();
            assert!(u32::from(picked) - u32::from(Ipv4Addr::new(10, 96, 0, 0)) > 256);
        }
        assert_eq!(pool.first(), "10.96.0.1");
    }

    #[test]
    fn finds_the_last_free_address() {
        let pool = AddressPool::new("10.0.0.0/28").unwrap();
        assert_eq!(pool.pick(|a| a != "10.0.0.7"), Some("10.0.0.7".to_owned()));
        assert_eq!(pool.pick(|_| true), None);
    }

    #[test]
    fn network_and_broadcast_are_nobodys() {
        let pool = AddressPool::new("10.0.0.0/28").unwrap();
        assert!(!pool.contains("10.0.0.0".parse().unwrap()));
        assert!(!pool.contains("10.0.0.15".parse().unwrap()));
        assert!(pool.contains("10.0.0.14".parse().unwrap()));
        assert!(!pool.contains("10.0.1.1".parse().unwrap()));
    }
}
