//! The ranges of a cluster: one, or one of each family, the primary one first. On a command line they are separated by
//! a comma: `10.244.0.0/16,fd00:244::/56`.

use std::{fmt, str::FromStr};

use crate::{
    cidr::{Cidr4, Cidr6, CidrError, IpCidr},
    family::IpFamily,
};

/// Why a text is no list of ranges.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangesError {
    /// A part is no range.
    #[error(transparent)]
    Cidr(#[from] CidrError),
    /// Too many, or two of one family.
    #[error("{0:?}: give one range, or one IPv4 and one IPv6 range separated by a comma")]
    Families(String),
}

/// One range, or one of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges {
    primary: IpCidr,
    secondary: Option<IpCidr>,
}

impl Ranges {
    /// The range of the primary family.
    #[must_use]
    pub fn primary(self) -> IpCidr {
        self.primary
    }

    /// The ranges, the primary one first.
    pub fn iter(self) -> impl Iterator<Item = IpCidr> {
        [Some(self.primary), self.secondary].into_iter().flatten()
    }

    /// The families, the primary one first.
    pub fn families(self) -> impl Iterator<Item = IpFamily> {
        self.iter().map(IpCidr::family)
    }

    /// The IPv4 range.
    #[must_use]
    pub fn v4(self) -> Option<Cidr4> {
        self.iter().find_map(|range| match range {
            IpCidr::V4(range) => Some(range),
            IpCidr::V6(_) => None,
        })
    }

    /// The IPv6 range.
    #[must_use]
    pub fn v6(self) -> Option<Cidr6> {
        self.iter().find_map(|range| match range {
            IpCidr::V6(range) => Some(range),
            IpCidr::V4(_) => None,
        })
    }
}

impl From<IpCidr> for Ranges {
    fn from(range: IpCidr) -> Self {
        Ranges { primary: range, secondary: None }
    }
}

impl FromStr for Ranges {
    type Err = RangesError;

    fn from_str(text: &str) -> Result<Self, RangesError> {
        let all: Vec<IpCidr> =
            text.split(',').map(|part| part.trim().parse()).collect::<Result<_, CidrError>>()?;
        match all[..] {
            [only] => Ok(only.into()),
            [one, other] if one.family() != other.family() => {
                Ok(Ranges { primary: one, secondary: Some(other) })
            }
            _ => Err(RangesError::Families(text.into())),
        }
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.secondary {
            None => self.primary.fmt(f),
            Some(secondary) => write!(f, "{},{secondary}", self.primary),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_or_one_a_family() {
        let dual: Ranges = "fd00:244::/56, 10.244.0.0/16".parse().unwrap();
        assert_eq!(dual.primary().family(), IpFamily::V6);
        assert_eq!((dual.v4().unwrap().length(), dual.v6().unwrap().length()), (16, 56));
        assert_eq!(dual.to_string(), "fd00:244::/56,10.244.0.0/16");
        assert_eq!("10.0.0.0/8".parse::<Ranges>().unwrap().v6(), None);
        for bad in ["", "10.0.0.0", "10.0.0.0/8,10.1.0.0/16", "10.0.0.0/8,fd00::/64,fd01::/64"] {
            assert!(bad.parse::<Ranges>().is_err(), "{bad}");
        }
    }
}
