//! What a node needs: the tunnel device, the node-side pair, and the routes of Services, pods and the node's own pods.
//!
//! Nothing here forwards a packet by itself: `skep_host` only takes up what processes of the node send to Services and
//! to pods elsewhere, and hands it to the programs on `skep_net`.

//!
//! IPv6 asks no neighbours: routes lead to a next hop that is nobody's, whose link-layer address is set to that of
//! `skep_net`; the programs answer for everybody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use skep_model::{Address, Cidr, IpCidr, MacAddr};

use crate::{
    netlink::Uplink,
    plan::{Desired, Link, LinkKind, Route},
    pod::PodLink,
};

/// The tunnel device.
pub const TUNNEL_LINK: &str = "skep_vxlan";
/// The stack's side of the node-side pair.
pub const HOST_LINK: &str = "skep_host";
/// The programs' side of the node-side pair.
pub const NET_LINK: &str = "skep_net";
/// Next hop of the IPv6 routes into [`HOST_LINK`].
pub const NEXT_HOP: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Bytes that VXLAN over IPv4 adds: Ethernet 14, VXLAN 8, UDP 8, IP 20.
pub const TUNNEL_OVERHEAD: u32 = 50;
/// Bytes that VXLAN over IPv6 adds: its header is 20 longer.
pub const TUNNEL_OVERHEAD_V6: u32 = 70;
/// UDP port of the tunnel.
const TUNNEL_PORT: u16 = 8472;
/// Reverse-path filter: loose. The kernel takes the larger of this and the global value, so zero would not weaken it.
const LOOSE: &str = "2";

/// What a node's network follows from in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyNetwork<A> {
    /// Underlay address.
    pub node_ip: A,
    /// First address of the node's pod range.
    pub gateway: A,
    /// The Service range.
    pub service_cidr: Cidr<A>,
    /// The range of all pods.
    pub cluster_cidr: Cidr<A>,
}

/// The facts that a node's network follows from. The tunnel runs over IPv4 wherever the node has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeNetwork {
    /// IPv4, if the cluster has it.
    pub v4: Option<FamilyNetwork<Ipv4Addr>>,
    /// IPv6, if the cluster has it.
    pub v6: Option<FamilyNetwork<Ipv6Addr>>,
    /// The device that carries the tunnel.
    pub uplink: Uplink,
    /// Link-layer address of [`NET_LINK`], once it is there; [`NodeNetwork::links`] does without.
    pub net_mac: MacAddr,
}

/// One family of a node, with the family forgotten.
struct Addresses {
    node_ip: IpAddr,
    gateway: IpAddr,
    ranges: [IpCidr; 2],
}

impl Addresses {
    fn of<A: Address>(network: &FamilyNetwork<A>, range: fn(Cidr<A>) -> IpCidr) -> Self {
        Addresses {
            node_ip: network.node_ip.into(),
            gateway: network.gateway.into(),
            ranges: [range(network.service_cidr), range(network.cluster_cidr)],
        }
    }
}

impl NodeNetwork {
    /// MTU of pods and of everything that leads to them.
    #[must_use]
    pub fn pod_mtu(&self) -> u32 {
        let overhead = if self.v4.is_some() { TUNNEL_OVERHEAD } else { TUNNEL_OVERHEAD_V6 };
        self.uplink.mtu.saturating_sub(overhead)
    }

    /// The address that a family's pods send everything to.
    #[must_use]
    pub fn gateway_for(&self, pod: IpAddr) -> Option<IpAddr> {
        self.families().find(|family| family.gateway.is_ipv4() == pod.is_ipv4()).map(|family| family.gateway)
    }

    fn families(&self) -> impl Iterator<Item = Addresses> {
        let v4 = self.v4.as_ref().map(|network| Addresses::of(network, IpCidr::V4));
        let v6 = self.v6.as_ref().map(|network| Addresses::of(network, IpCidr::V6));
        v4.into_iter().chain(v6)
    }

    /// The links and their settings, which must be there before programs are loaded.
    #[must_use]
    pub fn links(&self) -> Desired {
        let mtu = self.pod_mtu();
        let host = LinkKind::VethPair { peer: NET_LINK.into() };
        Desired {
            links: [
                (TUNNEL_LINK.into(), Link { kind: LinkKind::ExternalVxlan { port: TUNNEL_PORT }, mtu }),
                (HOST_LINK.into(), Link { kind: host, mtu }),
                (NET_LINK.into(), Link { kind: LinkKind::Existing, mtu }),
            ]
            .into(),
            addresses: self.families().map(|family| (HOST_LINK.into(), family.gateway)).collect(),
            sysctls: self.sysctls_v4().into_iter().chain(self.sysctls_v6()).collect(),
            ..Desired::default()
        }
    }

    /// A device of ours that has lost its program must not forward past policy. The setting for all devices comes first
    /// (settings are written in the order of their names): it overwrites the devices'.
    fn sysctls_v4(&self) -> Vec<(String, String)> {
        let closed = |link: &str| (format!("net/ipv4/conf/{link}/forwarding"), "0".to_owned());
        let loose = |link: &str| (format!("net/ipv4/conf/{link}/rp_filter"), LOOSE.to_owned());
        let open = self.v4.map(|_| ("net/ipv4/conf/all/forwarding".to_owned(), "1".to_owned()));
        open.into_iter()
            .chain([TUNNEL_LINK, HOST_LINK, NET_LINK].map(closed))
            .chain([TUNNEL_LINK, HOST_LINK].map(loose))
            .collect()
    }

    /// In IPv6 only the setting for all devices lets the stack forward, and it is left as it is: nothing of ours is
    /// forwarded by the stack. The uplink's own setting is what route lookups of the programs ask for; a device that
    /// has it heeds router advertisements only when told so once more (`accept_ra` 2).
    fn sysctls_v6(&self) -> Vec<(String, String)> {
        let ours = [TUNNEL_LINK, HOST_LINK, NET_LINK];
        if self.v6.is_none() {
            return ours.map(no_ipv6).into();
        }
        let uplink =
            |key: &str, value: &str| (format!("net/ipv6/conf/{}/{key}", self.uplink.name), value.to_owned());
        let mut settings: Vec<_> = ours.into_iter().flat_map(quiet_ipv6).collect();
        settings.push(uplink("forwarding", "1"));
        if self.uplink.heeds_routers {
            settings.push(uplink("accept_ra", "2"));
        }
        settings
    }

    /// Everything: links, routes, and what the given pods need on the node's side.
    #[must_use]
    pub fn desired<'a>(&self, pods: impl IntoIterator<Item = &'a PodLink>) -> Desired {
        let mut desired = self.links();
        for family in self.families() {
            let via = family.node_ip.is_ipv6().then_some(IpAddr::V6(NEXT_HOP));
            if let Some(via) = via {
                desired.neighbours.insert((HOST_LINK.into(), via), self.net_mac);
            }
            for range in family.ranges {
                let route = Route { device: HOST_LINK.into(), via, source: Some(family.node_ip) };
                desired.routes.insert(range, route);
            }
        }
        for pod in pods {
            let side = self.pod_side(pod);
            desired.links.extend(side.links);
            desired.routes.extend(side.routes);
            desired.neighbours.extend(side.neighbours);
            desired.sysctls.extend(side.sysctls);
        }
        desired
    }

    /// What one pod needs on the node's side, once its devices exist.
    #[must_use]
    pub fn pod_side(&self, pod: &PodLink) -> Desired {
        let name = &pod.host_name;
        let mut desired = Desired {
            links: [(name.clone(), Link { kind: LinkKind::Existing, mtu: pod.mtu })].into(),
            sysctls: pod.host_sysctls().into_iter().collect(),
            ..Desired::default()
        };
        for address in &pod.addresses {
            let own = self.families().find(|family| family.node_ip.is_ipv4() == address.ip.is_ipv4());
            let source = own.map(|family| family.node_ip);
            let route = Route { device: name.clone(), via: None, source };
            desired.routes.insert(IpCidr::host(address.ip), route);
            desired.neighbours.insert((name.clone(), address.ip), pod.pod_mac);
        }
        desired
    }
}

/// Keeps a device free of IPv6, whose router solicitations would only be counted as drops.
pub(crate) fn no_ipv6(link: &str) -> (String, String) {
    (format!("net/ipv6/conf/{link}/disable_ipv6"), "1".to_owned())
}

/// Opens a device for IPv6, and keeps it from saying or believing anything by itself: no address of its own, no
/// detection of duplicates, no advertised routes, no forwarding.
pub(crate) fn quiet_ipv6(link: &str) -> [(String, String); 5] {
    let settings = [
        ("accept_dad", "0"),
        ("accept_ra", "0"),
        ("addr_gen_mode", "1"),
        ("disable_ipv6", "0"),
        ("forwarding", "0"),
    ];
    settings.map(|(key, value)| (format!("net/ipv6/conf/{link}/{key}"), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::PodAddress;

    fn v4() -> FamilyNetwork<Ipv4Addr> {
        FamilyNetwork {
            node_ip: Ipv4Addr::new(10, 89, 0, 11),
            gateway: Ipv4Addr::new(10, 244, 0, 1),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        }
    }

    fn v6() -> FamilyNetwork<Ipv6Addr> {
        FamilyNetwork {
            node_ip: "fd00:89::11".parse().unwrap(),
            gateway: "fd00:244::1".parse().unwrap(),
            service_cidr: "fd00:96::/112".parse().unwrap(),
            cluster_cidr: "fd00:244::/56".parse().unwrap(),
        }
    }

    fn network() -> NodeNetwork {
        let uplink = Uplink { name: "eth0".into(), index: 2, mtu: 1500, heeds_routers: false };
        NodeNetwork { v4: Some(v4()), v6: None, uplink, net_mac: MacAddr([2; 6]) }
    }

    #[test]
    fn an_ipv6_tunnel_takes_more_of_the_mtu() {
        assert_eq!(NodeNetwork { v6: Some(v6()), ..network() }.pod_mtu(), 1450);
        assert_eq!(NodeNetwork { v4: None, v6: Some(v6()), ..network() }.pod_mtu(), 1430);
    }

    #[test]
    fn ipv6_routes_lead_to_a_next_hop_that_is_known() {
        let desired = NodeNetwork { v6: Some(v6()), ..network() }.desired([]);
        let route = &desired.routes[&"fd00:96::/112".parse().unwrap()];
        assert_eq!((route.via, route.source), (Some(NEXT_HOP.into()), Some("fd00:89::11".parse().unwrap())));
        assert_eq!(desired.neighbours[&(HOST_LINK.to_owned(), NEXT_HOP.into())], MacAddr([2; 6]));
        assert_eq!(desired.routes[&"10.96.0.0/16".parse().unwrap()].via, None);
        assert_eq!(desired.addresses.len(), 2);
    }

    #[test]
    fn the_stack_never_forwards_ipv6_and_the_uplink_keeps_its_routers() {
        let mut network = NodeNetwork { v6: Some(v6()), ..network() };
        network.uplink.heeds_routers = true;
        let settings = network.links().sysctls;
        assert!(!settings.contains_key("net/ipv6/conf/all/forwarding"));
        assert_eq!(settings["net/ipv6/conf/eth0/accept_ra"], "2");
        assert_eq!(settings["net/ipv6/conf/skep_vxlan/disable_ipv6"], "0");
        network.v6 = None;
        assert_eq!(network.links().sysctls["net/ipv6/conf/skep_vxlan/disable_ipv6"], "1");
    }

    #[test]
    fn every_device_on_a_pods_way_has_the_tunnels_mtu() {
        let pod = PodLink::new("c1", "eth0", 1450, vec![]);
        let desired = network().desired([&pod]);
        assert_eq!(desired.links.len(), 4);
        assert!(desired.links.values().all(|link| link.mtu == 1450));
    }

    #[test]
    fn a_pods_address_has_its_own_route_and_neighbour_and_no_forwarding() {
        let address = PodAddress { ip: [10, 244, 0, 7].into(), gateway: [10, 244, 0, 1].into() };
        let pod = PodLink::new("c1", "eth0", 1450, vec![address]);
        let desired = network().desired([&pod]);
        let route = &desired.routes[&"10.244.0.7/32".parse().unwrap()];
        assert_eq!((&route.device, route.source), (&pod.host_name, Some([10, 89, 0, 11].into())));
        assert_eq!(desired.neighbours[&(pod.host_name.clone(), address.ip)], pod.pod_mac);
        assert_eq!(desired.sysctls[&format!("net/ipv4/conf/{}/forwarding", pod.host_name)], "0");
    }
}
