//! The shell: reads what is, and carries out commands, in the calling thread's network namespace.

use std::{collections::BTreeMap, future::Future, net::IpAddr, os::fd::RawFd};

use futures::TryStreamExt;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope},
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan, RouteMessageBuilder};
use skep_model::{IpCidr, MacAddr};

use crate::{
    RoutingError,
    plan::{Actual, ActualLink, Command, Link, LinkKind, Route},
    pod::PodLink,
    sysctl,
};

/// Marks our routes among others' (numbers of routing daemons are above 4; see rtnetlink(7)).
const PROTOCOL: u8 = 92;
/// Errors that mean "there already" and "gone already".
const EXISTS: i32 = libc::EEXIST;
const GONE: [i32; 3] = [libc::ENODEV, libc::ESRCH, libc::EADDRNOTAVAIL];

/// The device that holds the node's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Name.
    pub name: String,
    /// Interface index.
    pub index: u32,
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether it takes addresses and routes from IPv6 router advertisements, as hosts do and routers do not.
    pub heeds_routers: bool,
}

/// A connection to the kernel.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens a socket in the calling thread's namespace. The future drives it: run it for as long as the handle is used.
    pub fn open() -> Result<(Self, impl Future<Output = ()> + Send + 'static), RoutingError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(RoutingError::Socket)?;
        Ok((Netlink { handle }, connection))
    }

    /// Reads everything that a plan is made from.
    pub async fn actual(&self) -> Result<Actual, RoutingError> {
        let links = self.links().await?;
        let names: BTreeMap<u32, String> =
            links.iter().map(|(name, link)| (link.index, name.clone())).collect();
        let addresses = self.addresses().await?;
        let addresses = addresses.iter().filter_map(|message| address_of(message, &names)).collect();
        let mut actual = Actual { links, addresses, ..Actual::default() };
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let routes = self.routes(family).await?;
            actual.routes.extend(routes.iter().filter_map(|message| route_of(message, &names)));
        }
        let request = self.handle.neighbours().get().execute();
        let neighbours: Vec<NeighbourMessage> =
            request.try_collect().await.map_err(failed("list neighbours"))?;
        actual.neighbours = neighbours.iter().filter_map(|message| neighbour_of(message, &names)).collect();
        Ok(actual)
    }

    /// All links by name.
    pub async fn links(&self) -> Result<BTreeMap<String, ActualLink>, RoutingError> {
        let request = self.handle.link().get().execute();
        let links: Vec<LinkMessage> = request.try_collect().await.map_err(failed("list links"))?;
        Ok(links.iter().filter_map(link_of).collect())
    }

    /// The device that holds `node_ip`.
    pub async fn uplink(&self, node_ip: IpAddr) -> Result<Uplink, RoutingError> {
        let name = self.own_addresses().await?.remove(&node_ip).ok_or(RoutingError::NoUplink(node_ip))?;
        let link = self.link(&name).await?.ok_or_else(|| RoutingError::NoDevice(name.clone()))?;
        let setting = |key: &str| sysctl::read(&format!("net/ipv6/conf/{name}/{key}"));
        let heeds_routers =
            setting("accept_ra").as_deref() == Some("1") && setting("forwarding").as_deref() == Some("0");
        Ok(Uplink { index: link.index, mtu: link.mtu, heeds_routers, name })
    }

    /// Every address of the node by the device that holds it, without link-local ones.
    pub async fn own_addresses(&self) -> Result<BTreeMap<IpAddr, String>, RoutingError> {
        let links = self.links().await?;
        let names: BTreeMap<u32, String> =
            links.iter().map(|(name, link)| (link.index, name.clone())).collect();
        let addresses = self.addresses().await?;
        let held = addresses.iter().filter_map(|message| {
            let name = names.get(&message.header.index)?;
            Some((ip_of(message)?, name.clone()))
        });
        Ok(held.filter(|(ip, _)| !ip.is_loopback() && !is_link_local(*ip)).collect())
    }

    /// Carries out one step.
    pub async fn execute(&self, command: &Command) -> Result<(), RoutingError> {
        match command {
            Command::CreateLink(name, link) => self.create(name, link).await,
            Command::WriteSysctl(key, value) => sysctl::write(key, value),
            Command::SetMtu(name, mtu) => {
                let change = LinkUnspec::new_with_name(name).mtu(*mtu).build();
                let done = self.handle.link().set(change).execute().await;
                done.map_err(failed(format!("set the MTU of {name} to {mtu}")))
            }
            Command::SetUp(name) => self.set_up(name).await,
            Command::AddAddress(name, ip) => self.add_address(name, *ip).await,
            Command::DeleteAddress(name, cidr) => self.delete_address(name, *cidr).await,
            Command::SetRoute(to, route) => self.set_route(*to, route).await,
            Command::DeleteRoute(to, route) => self.delete_route(*to, route).await,
            Command::SetNeighbour(name, ip, mac) => self.set_neighbour(name, *ip, *mac).await,
        }
    }

    /// Creates a pod's pair: the node's side here and down, the pod's side in the namespace of `netns`, down. Both have
    /// their final name, so no half-made device can be mistaken for a finished one.
    pub async fn create_pod_pair(&self, pod: &PodLink, netns: RawFd) -> Result<(), RoutingError> {
        let peer = LinkMessageBuilder::<LinkUnspec>::default()
            .name(pod.pod_name.clone())
            .mtu(pod.mtu)
            .address(pod.pod_mac.0.to_vec())
            .setns_by_fd(netns)
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(pod.host_name.clone())
            .mtu(pod.mtu)
            .address(pod.host_mac.0.to_vec())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        let done = self.handle.link().add(pair).execute().await;
        done.map_err(failed(format!("create the pair {} for {} of the pod", pod.host_name, pod.pod_name)))
    }

    /// Removes a link (and with it its peer); a missing one is fine.
    pub async fn delete_link(&self, name: &str) -> Result<(), RoutingError> {
        let Some(link) = self.link(name).await? else { return Ok(()) };
        forgive(self.handle.link().del(link.index).execute().await, &GONE)
            .map_err(failed(format!("remove {name}")))
    }

    /// One link by name.
    pub async fn link(&self, name: &str) -> Result<Option<ActualLink>, RoutingError> {
        let request = self.handle.link().get().match_name(name).execute();
        let found: Result<Vec<LinkMessage>, _> = request.try_collect().await;
        match found {
            Ok(links) => Ok(links.iter().filter_map(link_of).next().map(|(_, link)| link)),
            Err(error) if code(&error).is_some_and(|code| GONE.contains(&code)) => Ok(None),
            Err(source) => Err(RoutingError::Netlink { action: format!("look up {name}"), source }),
        }
    }

    /// Brings a link up.
    pub async fn set_up(&self, name: &str) -> Result<(), RoutingError> {
        let change = LinkUnspec::new_with_name(name).up().build();
        self.handle.link().set(change).execute().await.map_err(failed(format!("bring {name} up")))
    }

    /// Adds an address with host length; one that is there is fine.
    pub async fn add_address(&self, name: &str, ip: IpAddr) -> Result<(), RoutingError> {
        let index = self.index(name).await?;
        let length = IpCidr::host(ip).length();
        let mut request = self.handle.address().add(index, ip, length);
        if ip.is_ipv6() {
            // Usable at once: nobody else can have it, and nobody answers on these devices.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        forgive(request.execute().await, &[EXISTS]).map_err(failed(format!("add {ip} to {name}")))
    }

    /// Adds or replaces a route.
    pub async fn set_route(&self, to: IpCidr, route: &Route) -> Result<(), RoutingError> {
        let message = self.route_message(to, route).await?;
        let done = self.handle.route().add(message).replace().execute().await;
        done.map_err(failed(format!("route {to} to {}", route.device)))
    }

    /// Adds or replaces the default route through a gateway that is directly reachable on `name`.
    pub async fn set_default_route(&self, name: &str, gateway: IpAddr) -> Result<(), RoutingError> {
        let index = self.index(name).await?;
        let action = format!("set the default route through {gateway}");
        let message = match gateway {
            IpAddr::V4(gateway) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .output_interface(index)
                .gateway(gateway)
                .onlink()
                .build(),
            IpAddr::V6(gateway) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .output_interface(index)
                .gateway(gateway)
                .onlink()
                .build(),
        };
        self.handle.route().add(message).replace().execute().await.map_err(failed(action))
    }

    /// Adds or replaces a permanent neighbour.
    pub async fn set_neighbour(&self, name: &str, ip: IpAddr, mac: MacAddr) -> Result<(), RoutingError> {
        let index = self.index(name).await?;
        let request = self.handle.neighbours().add(index, ip).state(NeighbourState::Permanent);
        let done = request.link_layer_address(&mac.0).replace().execute().await;
        done.map_err(failed(format!("set the neighbour {ip} on {name}")))
    }

    async fn create(&self, name: &str, link: &Link) -> Result<(), RoutingError> {
        let message = match &link.kind {
            LinkKind::VethPair { peer } => LinkVeth::new(name, peer).build(),
            LinkKind::ExternalVxlan { port } => LinkMessageBuilder::<LinkVxlan>::new(name)
                .append_info_data(InfoVxlan::CollectMetadata(true))
                .append_info_data(InfoVxlan::Learning(false))
                // Over IPv6 a sender may leave the UDP checksum out (RFC 6935): the inner packet has its own.
                .append_info_data(InfoVxlan::UDPZeroCsumRX(true))
                .port(*port)
                .build(),
            LinkKind::Existing => return Err(RoutingError::NoDevice(name.into())),
        };
        forgive(self.handle.link().add(message).execute().await, &[EXISTS])
            .map_err(failed(format!("create {name}")))
    }

    async fn delete_address(&self, name: &str, cidr: IpCidr) -> Result<(), RoutingError> {
        let index = self.index(name).await?;
        for message in self.addresses().await? {
            let same = message.header.index == index
                && message.header.prefix_len == cidr.length()
                && ip_of(&message).is_some_and(|ip| cidr.contains(ip));
            if same {
                forgive(self.handle.address().del(message).execute().await, &GONE)
                    .map_err(failed(format!("remove {cidr} from {name}")))?;
            }
        }
        Ok(())
    }

    async fn delete_route(&self, to: IpCidr, route: &Route) -> Result<(), RoutingError> {
        let message = match self.route_message(to, route).await {
            Err(RoutingError::NoDevice(_)) => return Ok(()),
            message => message?,
        };
        forgive(self.handle.route().del(message).execute().await, &GONE)
            .map_err(failed(format!("remove the route to {to}")))
    }

    async fn route_message(&self, to: IpCidr, route: &Route) -> Result<RouteMessage, RoutingError> {
        let index = self.index(&route.device).await?;
        let mut message = match to {
            IpCidr::V4(to) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(to.network(), to.length())
                .output_interface(index)
                .build(),
            IpCidr::V6(to) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(to.network(), to.length())
                .output_interface(index)
                .build(),
        };
        message.header.protocol = RouteProtocol::from(PROTOCOL);
        match route.via {
            Some(IpAddr::V4(via)) => {
                message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(via)))
            }
            Some(IpAddr::V6(via)) => {
                message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet6(via)))
            }
            None => message.header.scope = RouteScope::Link,
        }
        if let Some(source) = route.source {
            message.attributes.push(RouteAttribute::PrefSource(source.into()));
        }
        Ok(message)
    }

    async fn index(&self, name: &str) -> Result<u32, RoutingError> {
        self.link(name).await?.map(|link| link.index).ok_or_else(|| RoutingError::NoDevice(name.into()))
    }

    async fn addresses(&self) -> Result<Vec<AddressMessage>, RoutingError> {
        self.handle.address().get().execute().try_collect().await.map_err(failed("list addresses"))
    }

    async fn routes(&self, family: AddressFamily) -> Result<Vec<RouteMessage>, RoutingError> {
        let mut filter = RouteMessage::default();
        filter.header.address_family = family;
        let routes: Vec<RouteMessage> =
            self.handle.route().get(filter).execute().try_collect().await.map_err(failed("list routes"))?;
        Ok(routes)
    }
}

fn failed(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> RoutingError {
    let action = action.into();
    move |source| RoutingError::Netlink { action, source }
}

fn code(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| code.get().saturating_neg()),
        _ => None,
    }
}

fn forgive(result: Result<(), rtnetlink::Error>, codes: &[i32]) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if code(&error).is_some_and(|code| codes.contains(&code)) => Ok(()),
        result => result,
    }
}

fn link_of(message: &LinkMessage) -> Option<(String, ActualLink)> {
    let mut name = None;
    let mut link = ActualLink {
        index: message.header.index,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        mac: MacAddr::default(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().map_or(link.mac, MacAddr),
            _ => {}
        }
    }
    Some((name?, link))
}

fn ip_of(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })
}

/// An address as its link and prefix. A prefix longer than the address's own host bits keeps only the network, which
/// is what tells ours (host length) from others'.
fn address_of(message: &AddressMessage, names: &BTreeMap<u32, String>) -> Option<(String, IpCidr)> {
    let ip = ip_of(message).filter(|ip| !is_link_local(*ip))?;
    let name = names.get(&message.header.index)?;
    Some((name.clone(), IpCidr::new(ip, message.header.prefix_len)?))
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn route_of(message: &RouteMessage, names: &BTreeMap<u32, String>) -> Option<(IpCidr, Route)> {
    if message.header.protocol != RouteProtocol::from(PROTOCOL) {
        return None;
    }
    let mut destination = None;
    let mut device = None;
    let (mut via, mut source) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = plain(address),
            RouteAttribute::Gateway(address) => via = plain(address),
            RouteAttribute::Oif(index) => device = names.get(index).cloned(),
            RouteAttribute::PrefSource(address) => source = plain(address),
            _ => {}
        }
    }
    let to = IpCidr::new(destination?, message.header.destination_prefix_length)?;
    Some((to, Route { device: device?, via, source }))
}

fn plain(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn neighbour_of(
    message: &NeighbourMessage,
    names: &BTreeMap<u32, String>,
) -> Option<((String, IpAddr), MacAddr)> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let name = names.get(&message.header.ifindex)?;
    let mut ip = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                ip = Some(IpAddr::V4(*address))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                ip = Some(IpAddr::V6(*address))
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes.as_slice().try_into().ok().map(MacAddr)
            }
            _ => {}
        }
    }
    Some(((name.clone(), ip?), mac?))
}
