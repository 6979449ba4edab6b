//! Ranges of addresses: a pool's blocks as numbers. Pure.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use skep_api::IpBlock;
use skep_model::{CidrError, IpCidr, IpFamily};

/// Why a block is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BlockError {
    /// Not exactly one of the two forms.
    #[error("block {0} needs either cidr, or start (with or without stop)")]
    Form(usize),
    /// The prefix notation is wrong.
    #[error("block {0}: {1}")]
    Cidr(usize, #[source] CidrError),
    /// An end is no address.
    #[error("block {0}: {1:?} is not an IP address")]
    Address(usize, String),
    /// The ends are of two families.
    #[error("block {0}: {1} and {2} are of two families")]
    Families(usize, IpAddr, IpAddr),
    /// The last address comes before the first.
    #[error("block {0}: start {1} comes after stop {2}")]
    Reversed(usize, IpAddr, IpAddr),
    /// The range holds addresses that cannot be a Service's.
    #[error("block {0}: {1} holds {2} addresses, which no Service can have")]
    Unusable(usize, Range, &'static str),
}

/// Addresses from `first` to `last`, both included, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Range {
    pub(crate) first: IpAddr,
    pub(crate) last: IpAddr,
}

/// A block of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Everything it names.
    pub(crate) whole: Range,
    /// What may be given of it.
    pub(crate) usable: Range,
}

/// Ranges that no network routes to a Service, by what they are.
const UNUSABLE: [(&str, &str); 9] = [
    ("0.0.0.0/8", "unspecified"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("::/127", "unspecified or loopback"),
    ("::ffff:0:0/96", "IPv4-mapped"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
];

/// The address as a number of its family's width.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(family: IpFamily, number: u128) -> IpAddr {
    match family {
        // Numbers only ever come from addresses of the same family.
        IpFamily::V4 => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpFamily::V6 => Ipv6Addr::from_bits(number).into(),
    }
}

/// The address after this one; `None` after the family's last.
pub(crate) fn next(of: IpAddr) -> Option<IpAddr> {
    let number = number(of).checked_add(1)?;
    let family = IpFamily::of(of);
    (family == IpFamily::V6 || number <= u128::from(u32::MAX)).then(|| address(family, number))
}

impl Range {
    /// The addresses of a prefix.
    pub(crate) fn of(cidr: IpCidr) -> Self {
        match cidr {
            IpCidr::V4(cidr) => Range { first: cidr.network().into(), last: cidr.last().into() },
            IpCidr::V6(cidr) => Range { first: cidr.network().into(), last: cidr.last().into() },
        }
    }

    /// The family.
    pub(crate) fn family(self) -> IpFamily {
        IpFamily::of(self.first)
    }

    /// Whether the address lies in it.
    pub(crate) fn contains(self, address: IpAddr) -> bool {
        // Addresses of two families never compare as between two of one.
        self.first <= address && address <= self.last
    }

    /// What both hold.
    pub(crate) fn overlap(self, other: Range) -> Option<Range> {
        if self.family() != other.family() {
            return None;
        }
        let shared = Range { first: self.first.max(other.first), last: self.last.min(other.last) };
        (shared.first <= shared.last).then_some(shared)
    }

    /// How many addresses; the whole of IPv6 counts one less.
    pub(crate) fn len(self) -> u128 {
        (number(self.last) - number(self.first)).saturating_add(1)
    }

    fn without_ends(self) -> Range {
        let family = self.family();
        Range { first: address(family, number(self.first) + 1), last: address(family, number(self.last) - 1) }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// The block at `index` of a pool.
///
/// # Errors
/// When it is no range, or holds what can be no Service's address.
pub(crate) fn block(index: usize, block: &IpBlock, with_ends: bool) -> Result<Block, BlockError> {
    let parse = |text: &String| -> Result<IpAddr, BlockError> {
        text.parse().ok().ok_or_else(|| BlockError::Address(index, text.clone()))
    };
    let (whole, cuts) = match (&block.cidr, &block.start, &block.stop) {
        (Some(cidr), None, None) => {
            let cidr: IpCidr = cidr.parse().map_err(|error| BlockError::Cidr(index, error))?;
            (Range::of(cidr), !with_ends)
        }
        (None, Some(start), stop) => {
            let first = parse(start)?;
            let last = stop.as_ref().map_or(Ok(first), parse)?;
            if IpFamily::of(first) != IpFamily::of(last) {
                return Err(BlockError::Families(index, first, last));
            }
            if first > last {
                return Err(BlockError::Reversed(index, first, last));
            }
            (Range { first, last }, false)
        }
        _ => return Err(BlockError::Form(index)),
    };
    for (text, what) in UNUSABLE {
        let unusable = text.parse::<IpCidr>().ok().map(Range::of);
        if unusable.is_some_and(|unusable| unusable.overlap(whole).is_some()) {
            return Err(BlockError::Unusable(index, whole, what));
        }
    }
    let usable = if cuts && whole.len() > 2 { whole.without_ends() } else { whole };
    Ok(Block { whole, usable })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> IpBlock {
        IpBlock { cidr: Some(text.into()), ..IpBlock::default() }
    }

    fn range(start: &str, stop: &str) -> IpBlock {
        IpBlock { start: Some(start.into()), stop: Some(stop.into()), ..IpBlock::default() }
    }

    #[test]
    fn the_ends_of_a_prefix_are_kept_back_unless_asked_for() {
        let given = block(0, &cidr("10.0.0.0/29"), false).unwrap();
        assert_eq!((given.usable.to_string(), given.whole.len()), ("10.0.0.1-10.0.0.6".into(), 8));
        assert_eq!(block(0, &cidr("10.0.0.0/29"), true).unwrap().usable.len(), 8);
        assert_eq!(block(0, &cidr("10.0.0.4/31"), false).unwrap().usable.len(), 2);
        assert_eq!(block(0, &cidr("fd00::5/128"), false).unwrap().usable.to_string(), "fd00::5");
        assert_eq!(block(0, &range("10.0.0.0", "10.0.0.255"), false).unwrap().usable.len(), 256);
    }

    #[test]
    fn what_is_no_range_says_why() {
        let refused = |block: &IpBlock| super::block(3, block, false).unwrap_err().to_string();
        assert!(refused(&IpBlock::default()).contains("needs either cidr"));
        assert!(refused(&IpBlock { stop: Some("1.1.1.1".into()), ..cidr("1.1.1.0/24") }).contains("either"));
        assert!(refused(&cidr("10.0.0.0/40")).contains("prefix length"));
        assert!(refused(&range("10.0.0.x", "10.0.0.9")).contains("not an IP address"));
        assert!(refused(&range("10.0.0.9", "10.0.0.1")).contains("comes after"));
        assert!(refused(&range("10.0.0.9", "fd00::1")).contains("two families"));
        assert!(refused(&cidr("127.0.0.0/30")).contains("loopback"));
        assert!(refused(&cidr("0.0.0.0/0")).contains("no Service can have"));
        assert!(refused(&range("fe80::1", "fe80::9")).contains("link-local"));
    }

    #[test]
    fn families_never_overlap_and_ends_are_included() {
        let four = Range::of("10.0.0.0/24".parse().unwrap());
        let other = Range { first: "10.0.0.255".parse().unwrap(), last: "10.0.3.0".parse().unwrap() };
        assert_eq!(four.overlap(other).unwrap().to_string(), "10.0.0.255");
        assert_eq!(four.overlap(Range::of("fd00::/8".parse().unwrap())), None);
        assert!(!four.contains("::a00:1".parse().unwrap()));
        assert_eq!(next("255.255.255.255".parse().unwrap()), None);
    }
}
