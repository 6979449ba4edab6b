//! The two address families, and the arithmetic that lets the rest be written once for both.

use std::{
    fmt::{self, Debug, Display},
    hash::Hash,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum IpFamily {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

impl IpFamily {
    /// Both families, in the order used for display.
    pub const ALL: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];

    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => IpFamily::V4,
            IpAddr::V6(_) => IpFamily::V6,
        }
    }

    /// Width of an address in bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            IpFamily::V4 => 32,
            IpFamily::V6 => 128,
        }
    }
}

impl Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IpFamily::V4 => "IPv4",
            IpFamily::V6 => "IPv6",
        })
    }
}

/// An address of one family, convertible to and from an integer in host order.
pub trait Address:
    Copy + Ord + Hash + Debug + Display + FromStr + Into<IpAddr> + Send + Sync + 'static
{
    /// The family.
    const FAMILY: IpFamily;

    /// The address as an integer; IPv4 uses the low 32 bits.
    fn to_number(self) -> u128;

    /// The address of an integer; bits above the family's width are ignored.
    fn from_number(number: u128) -> Self;

    /// Narrows a family-erased address; `None` when it is of the other family.
    fn from_ip(address: IpAddr) -> Option<Self>;
}

impl Address for Ipv4Addr {
    const FAMILY: IpFamily = IpFamily::V4;

    fn to_number(self) -> u128 {
        u128::from(self.to_bits())
    }

    fn from_number(number: u128) -> Self {
        Ipv4Addr::from_bits((number & u128::from(u32::MAX)) as u32)
    }

    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }
}

impl Address for Ipv6Addr {
    const FAMILY: IpFamily = IpFamily::V6;

    fn to_number(self) -> u128 {
        self.to_bits()
    }

    fn from_number(number: u128) -> Self {
        Ipv6Addr::from_bits(number)
    }

    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_address_survives_the_trip_through_its_number(v4: u32, v6: u128) {
            let v4 = Ipv4Addr::from_bits(v4);
            let v6 = Ipv6Addr::from_bits(v6);
            prop_assert_eq!(Ipv4Addr::from_number(v4.to_number()), v4);
            prop_assert_eq!(Ipv6Addr::from_number(v6.to_number()), v6);
        }
    }

    #[test]
    fn narrowing_refuses_the_other_family() {
        assert_eq!(Ipv6Addr::from_ip(IpAddr::V4(Ipv4Addr::LOCALHOST)), None);
        assert_eq!(Ipv4Addr::from_ip(IpAddr::V4(Ipv4Addr::LOCALHOST)), Some(Ipv4Addr::LOCALHOST));
    }
}
