//! Address ranges in prefix notation, one implementation for both families (RFC 4632, RFC 4291).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::family::{Address, IpFamily};

/// Why a text is not an address range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// There is no `/` in the text.
    #[error("{0:?} has no prefix length: write an address, a slash and a number, as in 10.244.0.0/24")]
    NoPrefix(String),
    /// The part before the slash is not an address of the family asked for.
    #[error("{text:?} does not start with an {family} address")]
    Address {
        /// The text.
        text: String,
        /// The family that was asked for.
        family: IpFamily,
    },
    /// The part after the slash is not a number within the family's width.
    #[error("{text:?} has a prefix length that is not between 0 and {max}")]
    Length {
        /// The text.
        text: String,
        /// The longest prefix of the family.
        max: u8,
    },
}

/// A range of one family. The network address is stored with its host bits cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr<A> {
    network: A,
    length: u8,
}

/// An IPv4 range.
pub type Cidr4 = Cidr<Ipv4Addr>;
/// An IPv6 range.
pub type Cidr6 = Cidr<Ipv6Addr>;

impl<A: Address> Cidr<A> {
    /// The range of `length` bits that holds `address`; `None` when the length exceeds the family's width.
    #[must_use]
    pub fn new(address: A, length: u8) -> Option<Self> {
        (length <= A::FAMILY.bits())
            .then(|| Cidr { network: A::from_number(address.to_number() & !host_mask::<A>(length)), length })
    }

    /// The range that holds this address only.
    #[must_use]
    pub fn host(address: A) -> Self {
        Cidr { network: address, length: A::FAMILY.bits() }
    }

    /// First address.
    #[must_use]
    pub fn network(self) -> A {
        self.network
    }

    /// Prefix length in bits.
    #[must_use]
    pub fn length(self) -> u8 {
        self.length
    }

    /// Last address; in IPv4 the broadcast address.
    #[must_use]
    pub fn last(self) -> A {
        A::from_number(self.network.to_number() | host_mask::<A>(self.length))
    }

    /// Number of addresses minus one (so that `::/0` fits).
    #[must_use]
    pub fn span(self) -> u128 {
        host_mask::<A>(self.length)
    }

    /// The address `offset` places after the first; `None` beyond the end.
    #[must_use]
    pub fn nth(self, offset: u128) -> Option<A> {
        (offset <= self.span()).then(|| A::from_number(self.network.to_number() + offset))
    }

    /// How far `address` is from the first address; `None` when it is outside.
    #[must_use]
    pub fn offset_of(self, address: A) -> Option<u128> {
        self.contains(address).then(|| address.to_number() - self.network.to_number())
    }

    /// Whether the address lies in the range.
    #[must_use]
    pub fn contains(self, address: A) -> bool {
        address.to_number() & !host_mask::<A>(self.length) == self.network.to_number()
    }

    /// Whether the two ranges share an address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }
}

/// Ones in the host part.
fn host_mask<A: Address>(length: u8) -> u128 {
    let width = u32::from(A::FAMILY.bits());
    let host = width - u32::from(length).min(width);
    if host == 128 { u128::MAX } else { (1u128 << host) - 1 }
}

impl<A: Address> fmt::Display for Cidr<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

impl<A: Address> FromStr for Cidr<A> {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, length) = text.split_once('/').ok_or_else(|| CidrError::NoPrefix(text.into()))?;
        let address: A = address
            .parse()
            .ok()
            .ok_or_else(|| CidrError::Address { text: text.into(), family: A::FAMILY })?;
        let refused = || CidrError::Length { text: text.into(), max: A::FAMILY.bits() };
        Cidr::new(address, length.parse().ok().ok_or_else(refused)?).ok_or_else(refused)
    }
}

/// A range of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum IpCidr {
    /// IPv4.
    V4(Cidr4),
    /// IPv6.
    V6(Cidr6),
}

impl IpCidr {
    /// The range of `length` bits that holds `address`.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Cidr::new(address, length).map(IpCidr::V4),
            IpAddr::V6(address) => Cidr::new(address, length).map(IpCidr::V6),
        }
    }

    /// The range that holds this address only.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => IpCidr::V4(Cidr::host(address)),
            IpAddr::V6(address) => IpCidr::V6(Cidr::host(address)),
        }
    }

    /// The family.
    #[must_use]
    pub fn family(self) -> IpFamily {
        match self {
            IpCidr::V4(_) => IpFamily::V4,
            IpCidr::V6(_) => IpFamily::V6,
        }
    }

    /// First address.
    #[must_use]
    pub fn network(self) -> IpAddr {
        match self {
            IpCidr::V4(cidr) => cidr.network().into(),
            IpCidr::V6(cidr) => cidr.network().into(),
        }
    }

    /// Prefix length in bits.
    #[must_use]
    pub fn length(self) -> u8 {
        match self {
            IpCidr::V4(cidr) => cidr.length(),
            IpCidr::V6(cidr) => cidr.length(),
        }
    }

    /// Whether the address lies in the range; false for the other family.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        match (self, address) {
            (IpCidr::V4(cidr), IpAddr::V4(address)) => cidr.contains(address),
            (IpCidr::V6(cidr), IpAddr::V6(address)) => cidr.contains(address),
            _ => false,
        }
    }
}

impl fmt::Display for IpCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IpCidr::V4(cidr) => cidr.fmt(f),
            IpCidr::V6(cidr) => cidr.fmt(f),
        }
    }
}

impl FromStr for IpCidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        if text.contains(':') { text.parse().map(IpCidr::V6) } else { text.parse().map(IpCidr::V4) }
    }
}

impl TryFrom<String> for IpCidr {
    type Error = CidrError;

    fn try_from(text: String) -> Result<Self, CidrError> {
        text.parse()
    }
}

impl From<IpCidr> for String {
    fn from(cidr: IpCidr) -> Self {
        cidr.to_string()
    }
}

impl From<Cidr4> for IpCidr {
    fn from(cidr: Cidr4) -> Self {
        IpCidr::V4(cidr)
    }
}

impl From<Cidr6> for IpCidr {
    fn from(cidr: Cidr6) -> Self {
        IpCidr::V6(cidr)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parsing_clears_the_host_bits() {
        let cidr: Cidr4 = "10.244.3.7/24".parse().unwrap();
        assert_eq!(cidr.to_string(), "10.244.3.0/24");
        assert_eq!(cidr.last(), Ipv4Addr::new(10, 244, 3, 255));
    }

    #[test]
    fn bad_texts_are_told_apart() {
        assert!(matches!("10.0.0.1".parse::<IpCidr>(), Err(CidrError::NoPrefix(_))));
        assert!(matches!("10.0.0/8".parse::<IpCidr>(), Err(CidrError::Address { .. })));
        assert!(matches!("10.0.0.0/33".parse::<IpCidr>(), Err(CidrError::Length { max: 32, .. })));
        assert!(matches!("fd00::/129".parse::<IpCidr>(), Err(CidrError::Length { max: 128, .. })));
    }

    #[test]
    fn the_widest_range_holds_every_address() {
        let all: Cidr6 = "::/0".parse().unwrap();
        assert_eq!(all.span(), u128::MAX);
        assert!(all.contains(Ipv6Addr::from_bits(u128::MAX)));
    }

    proptest! {
        #[test]
        fn text_round_trips(bits: u128, length in 0u8..=128) {
            let cidr = Cidr::new(Ipv6Addr::from_bits(bits), length).unwrap();
            prop_assert_eq!(cidr.to_string().parse::<Cidr6>().unwrap(), cidr);
        }

        #[test]
        fn contains_equals_the_interval(bits: u32, other: u32, length in 0u8..=32) {
            let cidr = Cidr::new(Ipv4Addr::from_bits(bits), length).unwrap();
            let other = Ipv4Addr::from_bits(other);
            prop_assert_eq!(cidr.contains(other), cidr.network() <= other && other <= cidr.last());
            prop_assert_eq!(cidr.offset_of(other).and_then(|n| cidr.nth(n)), cidr.contains(other).then_some(other));
        }

        #[test]
        fn overlap_is_symmetric(a: u32, b: u32, la in 0u8..=32, lb in 0u8..=32) {
            let a = Cidr::new(Ipv4Addr::from_bits(a), la).unwrap();
            let b = Cidr::new(Ipv4Addr::from_bits(b), lb).unwrap();
            prop_assert_eq!(a.overlaps(b), b.overlaps(a));
            prop_assert_eq!(a.overlaps(b), a.network() <= b.last() && b.network() <= a.last());
        }
    }
}
