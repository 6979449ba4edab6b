//! What a node needs: the tunnel device, the node-side pair, and the routes of Services, pods and the node's own pods.
//!
//! Nothing here forwards a packet by itself: `skep_host` only takes up what processes of the node send to Services and
//! to pods elsewhere, and hands it to the programs on `skep_net`.

use std::net::{IpAddr, Ipv4Addr};

use skep_model::{Cidr4, IpCidr};

use crate::{
    plan::{Desired, Link, LinkKind, Route},
    pod::PodLink,
};

/// The tunnel device.
pub const TUNNEL_LINK: &str = "skep_vxlan";
/// The stack's side of the node-side pair.
pub const HOST_LINK: &str = "skep_host";
/// The programs' side of the node-side pair.
pub const NET_LINK: &str = "skep_net";
/// Bytes that VXLAN over IPv4 adds: Ethernet 14, VXLAN 8, UDP 8, IP 20.
pub const TUNNEL_OVERHEAD: u32 = 50;
/// UDP port of the tunnel.
const TUNNEL_PORT: u16 = 8472;
/// Reverse-path filter: loose. The kernel takes the larger of this and the global value, so zero would not weaken it.
const LOOSE: &str = "2";

/// The facts that a node's network follows from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeNetwork {
    /// Underlay address.
    pub node_ip: Ipv4Addr,
    /// First address of the node's pod range.
    pub gateway: Ipv4Addr,
    /// The Service range.
    pub service_cidr: Cidr4,
    /// The range of all pods.
    pub cluster_cidr: Cidr4,
    /// MTU of the uplink.
    pub uplink_mtu: u32,
}

impl NodeNetwork {
    /// MTU of pods and of everything that leads to them.
    #[must_use]
    pub fn pod_mtu(&self) -> u32 {
        self.uplink_mtu.saturating_sub(TUNNEL_OVERHEAD)
    }

    /// The links and their settings, which must be there before programs are loaded.
    #[must_use]
    pub fn links(&self) -> Desired {
        let mtu = self.pod_mtu();
        let host = LinkKind::VethPair { peer: NET_LINK.into() };
        let closed = |link: &str| (format!("net/ipv4/conf/{link}/forwarding"), "0".to_owned());
        let loose = |link: &str| (format!("net/ipv4/conf/{link}/rp_filter"), LOOSE.to_owned());
        Desired {
            links: [
                (TUNNEL_LINK.into(), Link { kind: LinkKind::ExternalVxlan { port: TUNNEL_PORT }, mtu }),
                (HOST_LINK.into(), Link { kind: host, mtu }),
                (NET_LINK.into(), Link { kind: LinkKind::Existing, mtu }),
            ]
            .into(),
            addresses: [(HOST_LINK.into(), self.gateway.into())].into(),
            sysctls: [
                // For all first: it overwrites the devices', which are closed after it. A device of ours that has
                // lost its program must not forward past policy.
                ("net/ipv4/conf/all/forwarding".into(), "1".into()),
                closed(TUNNEL_LINK),
                closed(HOST_LINK),
                closed(NET_LINK),
                loose(TUNNEL_LINK),
                loose(HOST_LINK),
                no_ipv6(TUNNEL_LINK),
                no_ipv6(HOST_LINK),
                no_ipv6(NET_LINK),
            ]
            .into(),
            ..Desired::default()
        }
    }

    /// Everything: links, routes, and what the given pods need on the node's side.
    #[must_use]
    pub fn desired<'a>(&self, pods: impl IntoIterator<Item = &'a PodLink>) -> Desired {
        let mut desired = self.links();
        let source = Some(IpAddr::V4(self.node_ip));
        for range in [self.service_cidr, self.cluster_cidr] {
            desired.routes.insert(IpCidr::V4(range), Route { device: HOST_LINK.into(), source });
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
            let source = address.ip.is_ipv4().then_some(IpAddr::V4(self.node_ip));
            desired.routes.insert(IpCidr::host(address.ip), Route { device: name.clone(), source });
            desired.neighbours.insert((name.clone(), address.ip), pod.pod_mac);
        }
        desired
    }
}

/// Keeps a device free of IPv6, whose router solicitations would only be counted as drops.
pub(crate) fn no_ipv6(link: &str) -> (String, String) {
    (format!("net/ipv6/conf/{link}/disable_ipv6"), "1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::PodAddress;

    fn network() -> NodeNetwork {
        NodeNetwork {
            node_ip: Ipv4Addr::new(10, 89, 0, 11),
            gateway: Ipv4Addr::new(10, 244, 0, 1),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            uplink_mtu: 1500,
        }
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
