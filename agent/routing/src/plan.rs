//! Desired against actual: what to create, change and remove, in an order that works.
//!
//! Ownership keeps other software's configuration safe: routes are ours when they carry our protocol number, addresses
//! when they are on one of our links; links are created here but removed only by name, by whoever owns the endpoint.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use skep_model::{IpCidr, MacAddr};

/// What kind of device a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// One end of a pair in this namespace; the other, which is [`LinkKind::Existing`], is created with it.
    VethPair {
        /// Name of the other end.
        peer: String,
    },
    /// VXLAN in external (collect metadata) mode.
    ExternalVxlan {
        /// UDP destination port.
        port: u16,
    },
    /// Created elsewhere; only its settings are planned here.
    Existing,
}

/// A link that should be there and up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What to create when it is missing.
    pub kind: LinkKind,
    /// MTU in bytes.
    pub mtu: u32,
}

/// A route of the main table. Key: its destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Device that packets leave through.
    pub device: String,
    /// Next hop on that device; without one the destination is directly reachable there.
    pub via: Option<IpAddr>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
}

/// What should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Links by name.
    pub links: BTreeMap<String, Link>,
    /// Addresses by link; always with host length.
    pub addresses: BTreeSet<(String, IpAddr)>,
    /// Routes by destination.
    pub routes: BTreeMap<IpCidr, Route>,
    /// Permanent neighbours by link and address.
    pub neighbours: BTreeMap<(String, IpAddr), MacAddr>,
    /// Settings by path below `/proc/sys`.
    pub sysctls: BTreeMap<String, String>,
}

/// A link that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActualLink {
    /// Interface index.
    pub index: u32,
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// Link-layer address.
    pub mac: MacAddr,
}

/// What is, as far as it concerns us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actual {
    /// All links by name.
    pub links: BTreeMap<String, ActualLink>,
    /// Addresses by link, without link-local ones.
    pub addresses: BTreeSet<(String, IpCidr)>,
    /// Routes of our protocol number.
    pub routes: BTreeMap<IpCidr, Route>,
    /// Permanent neighbours.
    pub neighbours: BTreeMap<(String, IpAddr), MacAddr>,
}

/// One step towards what should be. Every step may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Create a link, down.
    CreateLink(String, Link),
    /// Write a setting. It comes before the link is up, so that no packet sees the old one.
    WriteSysctl(String, String),
    /// Set the MTU.
    SetMtu(String, u32),
    /// Bring a link up.
    SetUp(String),
    /// Remove an address.
    DeleteAddress(String, IpCidr),
    /// Add an address with host length.
    AddAddress(String, IpAddr),
    /// Remove a route.
    DeleteRoute(IpCidr, Route),
    /// Add or replace a route.
    SetRoute(IpCidr, Route),
    /// Add or replace a permanent neighbour.
    SetNeighbour(String, IpAddr, MacAddr),
}

/// The steps from actual to desired.
#[must_use]
pub fn plan(desired: &Desired, actual: &Actual) -> Vec<Command> {
    let mut commands = missing_links(desired, actual);
    let settings = desired.sysctls.iter();
    commands.extend(settings.map(|(key, value)| Command::WriteSysctl(key.clone(), value.clone())));
    commands.extend(link_settings(desired, actual));
    commands.extend(address_changes(desired, actual));
    let stale = desired.neighbours.iter().filter(|(key, mac)| actual.neighbours.get(*key) != Some(mac));
    commands.extend(stale.map(|((link, ip), mac)| Command::SetNeighbour(link.clone(), *ip, *mac)));
    commands.extend(route_changes(desired, actual));
    commands
}

fn missing_links(desired: &Desired, actual: &Actual) -> Vec<Command> {
    desired
        .links
        .iter()
        .filter(|(name, link)| link.kind != LinkKind::Existing && !actual.links.contains_key(*name))
        .map(|(name, link)| Command::CreateLink(name.clone(), link.clone()))
        .collect()
}

fn link_settings(desired: &Desired, actual: &Actual) -> Vec<Command> {
    let mut commands = Vec::new();
    for (name, link) in &desired.links {
        let now = actual.links.get(name);
        if now.is_none_or(|now| now.mtu != link.mtu) {
            commands.push(Command::SetMtu(name.clone(), link.mtu));
        }
        if now.is_none_or(|now| !now.up) {
            commands.push(Command::SetUp(name.clone()));
        }
    }
    commands
}

fn address_changes(desired: &Desired, actual: &Actual) -> Vec<Command> {
    let wanted: BTreeSet<(String, IpCidr)> =
        desired.addresses.iter().map(|(link, ip)| (link.clone(), IpCidr::host(*ip))).collect();
    let ours = |(link, _): &&(String, IpCidr)| desired.links.contains_key(link);
    let extra = actual.addresses.difference(&wanted).filter(ours);
    let mut commands: Vec<_> =
        extra.map(|(link, cidr)| Command::DeleteAddress(link.clone(), *cidr)).collect();
    let missing = wanted.difference(&actual.addresses);
    commands.extend(missing.map(|(link, cidr)| Command::AddAddress(link.clone(), cidr.network())));
    commands
}

fn route_changes(desired: &Desired, actual: &Actual) -> Vec<Command> {
    let gone = actual.routes.iter().filter(|(destination, _)| !desired.routes.contains_key(*destination));
    let mut commands: Vec<_> = gone.map(|(to, route)| Command::DeleteRoute(*to, route.clone())).collect();
    let news =
        desired.routes.iter().filter(|(destination, route)| actual.routes.get(*destination) != Some(route));
    commands.extend(news.map(|(to, route)| Command::SetRoute(*to, route.clone())));
    commands
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(mtu: u32) -> Link {
        Link { kind: LinkKind::VethPair { peer: "b".into() }, mtu }
    }

    fn desired() -> Desired {
        let route = Route { device: "a".into(), via: None, source: None };
        Desired {
            links: [("a".into(), pair(1450)), ("b".into(), Link { kind: LinkKind::Existing, mtu: 1450 })]
                .into(),
            addresses: [("a".into(), [10, 0, 0, 1].into())].into(),
            routes: [("10.96.0.0/16".parse().unwrap(), route)].into(),
            neighbours: BTreeMap::new(),
            sysctls: [("net/ipv4/conf/a/forwarding".into(), "0".into())].into(),
        }
    }

    /// Carries commands out on a model of the kernel.
    fn execute(actual: &mut Actual, commands: &[Command]) {
        for command in commands {
            match command.clone() {
                Command::CreateLink(name, link) => {
                    let fresh = || ActualLink { index: 1, mtu: 1500, up: false, mac: MacAddr::default() };
                    if let LinkKind::VethPair { peer } = link.kind {
                        actual.links.insert(peer, fresh());
                    }
                    actual.links.insert(name, fresh());
                }
                Command::WriteSysctl(..) => {}
                Command::SetMtu(name, mtu) => actual.links.get_mut(&name).unwrap().mtu = mtu,
                Command::SetUp(name) => actual.links.get_mut(&name).unwrap().up = true,
                Command::DeleteAddress(link, cidr) => assert!(actual.addresses.remove(&(link, cidr))),
                Command::AddAddress(link, ip) => {
                    assert!(actual.links.contains_key(&link));
                    assert!(actual.addresses.insert((link, IpCidr::host(ip))));
                }
                Command::DeleteRoute(to, route) => assert_eq!(actual.routes.remove(&to), Some(route)),
                Command::SetRoute(to, route) => {
                    assert!(actual.links[&route.device].up);
                    actual.routes.insert(to, route);
                }
                Command::SetNeighbour(link, ip, mac) => {
                    actual.neighbours.insert((link, ip), mac);
                }
            }
        }
    }

    #[test]
    fn a_pair_is_created_once_and_settings_come_before_up() {
        let commands = plan(&desired(), &Actual::default());
        assert_eq!(commands.iter().filter(|command| matches!(command, Command::CreateLink(..))).count(), 1);
        let place = |wanted: fn(&Command) -> bool| commands.iter().position(wanted).unwrap();
        let created = place(|command| matches!(command, Command::CreateLink(name, _) if name == "a"));
        let written = place(|command| matches!(command, Command::WriteSysctl(..)));
        let up = place(|command| matches!(command, Command::SetUp(_)));
        assert!(created < written && written < up);
    }

    #[test]
    fn foreign_addresses_and_links_are_left_alone() {
        let mut actual = Actual::default();
        actual.addresses.insert(("eth0".into(), "192.0.2.1/24".parse().unwrap()));
        let commands = plan(&desired(), &actual);
        assert!(!commands.iter().any(|command| matches!(command, Command::DeleteAddress(..))));
    }

    proptest! {
        #[test]
        fn executing_the_plan_converges(
            mtu in 1000u32..1500,
            addresses in proptest::collection::btree_set(0u8..8, 0..4),
            before in proptest::collection::btree_set(0u8..8, 0..4),
            routes in proptest::collection::btree_set(0u8..8, 0..4),
            routes_before in proptest::collection::btree_set(0u8..8, 0..4),
        ) {
            let address = |n: u8| -> IpAddr { [10, 0, 0, n].into() };
            let route = Route { device: "a".into(), via: None, source: None };
            let destination = |n: u8| -> IpCidr { format!("10.{n}.0.0/16").parse().unwrap() };
            let desired = Desired {
                links: [("a".into(), pair(mtu))].into(),
                addresses: addresses.iter().map(|n| ("a".into(), address(*n))).collect(),
                routes: routes.iter().map(|n| (destination(*n), route.clone())).collect(),
                neighbours: [(("a".into(), address(9)), MacAddr([2; 6]))].into(),
                sysctls: BTreeMap::new(),
            };
            let stale = Route { device: "a".into(), via: None, source: Some(address(1)) };
            let mut actual = Actual {
                addresses: before.iter().map(|n| ("a".into(), IpCidr::host(address(*n)))).collect(),
                routes: routes_before.iter().map(|n| (destination(*n), stale.clone())).collect(),
                ..Actual::default()
            };
            if !before.is_empty() {
                actual.links.insert("a".into(), ActualLink { index: 1, mtu: 1500, up: true, mac: MacAddr::default() });
            }
            let commands = plan(&desired, &actual);
            execute(&mut actual, &commands);
            prop_assert_eq!(plan(&desired, &actual), vec![]);
            prop_assert_eq!(actual.routes, desired.routes);
        }
    }
}
