//! The lab's addresses, in one family or in both. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::plan::NodeNumber;

/// The address families of a cluster; the first one is primary.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Families {
    /// IPv4 alone.
    #[default]
    Ipv4,
    /// IPv6 alone.
    Ipv6,
    /// Both, IPv4 first.
    Dual,
}

const BOTH: [Lab; 2] = [
    Lab {
        cluster: "10.244.0.0/16",
        services: "10.96.0.0/16",
        dns: IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)),
        router: IpAddr::V4(Ipv4Addr::new(10, 89, 0, 1)),
        length: 24,
    },
    Lab {
        cluster: "fd00:244::/56",
        services: "fd00:96::/112",
        dns: IpAddr::V6(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0xa)),
        router: IpAddr::V6(Ipv6Addr::new(0xfd00, 0x89, 0, 0, 0, 0, 0, 1)),
        length: 64,
    },
];

/// What the lab uses of one family.
struct Lab {
    cluster: &'static str,
    services: &'static str,
    dns: IpAddr,
    router: IpAddr,
    length: u8,
}

impl Families {
    fn labs(self) -> &'static [Lab] {
        match self {
            Self::Ipv4 => &BOTH[..1],
            Self::Ipv6 => &BOTH[1..],
            Self::Dual => &BOTH,
        }
    }

    /// Whether IPv6 is among them.
    pub(crate) fn has_v6(self) -> bool {
        self != Self::Ipv4
    }

    /// The pods' ranges, as the control plane and the agents take them.
    pub(crate) fn cluster_cidr(self) -> String {
        join(self.labs().iter().map(|lab| lab.cluster))
    }

    /// The Services' ranges, likewise.
    pub(crate) fn service_cidr(self) -> String {
        join(self.labs().iter().map(|lab| lab.services))
    }

    /// The kube-dns Service's addresses.
    pub(crate) fn dns(self) -> Vec<IpAddr> {
        self.labs().iter().map(|lab| lab.dns).collect()
    }

    /// The router's addresses with the length of their networks.
    pub(crate) fn router(self) -> Vec<(IpAddr, u8)> {
        self.labs().iter().map(|lab| (lab.router, lab.length)).collect()
    }

    /// A node's addresses, with the length of their networks.
    pub(crate) fn node(self, node: NodeNumber) -> Vec<(IpAddr, u8)> {
        self.router().into_iter().map(|(router, length)| (beside(router, node), length)).collect()
    }

    /// A node's address of the primary family.
    pub(crate) fn primary(self, node: NodeNumber) -> IpAddr {
        beside(self.labs()[0].router, node)
    }

    /// The unspecified address on which a listener serves all of them.
    pub(crate) fn any(self) -> IpAddr {
        if self.has_v6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
    }
}

/// Node 1 is 10.89.0.11 and fd00:89::11: the number reads the same in both.
fn beside(router: IpAddr, node: NodeNumber) -> IpAddr {
    let number = u16::from(node.0) + 10;
    match router {
        IpAddr::V4(router) => {
            let [a, b, c, _] = router.octets();
            Ipv4Addr::new(a, b, c, node.0 + 10).into()
        }
        IpAddr::V6(router) => {
            let mut segments = router.segments();
            segments[7] = (number / 100 * 0x100) + (number / 10 % 10 * 0x10) + number % 10;
            Ipv6Addr::from(segments).into()
        }
    }
}

/// Texts with commas between.
pub(crate) fn join<T: ToString>(texts: impl IntoIterator<Item = T>) -> String {
    texts.into_iter().map(|text| text.to_string()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_number_reads_the_same_in_both_families() {
        let texts = |number| join(Families::Dual.node(NodeNumber(number)).into_iter().map(|(ip, _)| ip));
        assert_eq!(texts(1), "10.89.0.11,fd00:89::11");
        assert_eq!(texts(200), "10.89.0.210,fd00:89::210");
    }

    #[test]
    fn the_first_family_is_primary() {
        assert_eq!(Families::Dual.primary(NodeNumber(2)).to_string(), "10.89.0.12");
        assert_eq!(Families::Ipv6.primary(NodeNumber(2)).to_string(), "fd00:89::12");
        assert_eq!(Families::Dual.cluster_cidr(), "10.244.0.0/16,fd00:244::/56");
        assert_eq!(Families::Ipv6.service_cidr(), "fd00:96::/112");
    }
}
