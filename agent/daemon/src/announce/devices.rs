//! The node's devices that could carry announcements.

use std::{collections::BTreeMap, fs, net::IpAddr};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};
use skep_model::MacAddr;

use super::wanted::Device;

/// Devices of ours, which lead to no neighbours.
const OWN_PREFIX: &str = "skep";
/// Flag of a route that is in use (linux/route.h).
const ROUTE_UP: u32 = 1;

/// The Ethernet devices that are up. Uplinks are those in `chosen`; when it is empty, those with a default route or
/// with an address of the node.
///
/// # Errors
/// When the kernel does not list them.
pub(crate) fn devices(node_addresses: &[IpAddr], chosen: &[String]) -> nix::Result<Vec<Device>> {
    let mut found: BTreeMap<String, Device> = BTreeMap::new();
    let mut holders = default_routes();
    for entry in getifaddrs()? {
        let carries = entry.flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_BROADCAST)
            && !entry.flags.intersects(InterfaceFlags::IFF_LOOPBACK | InterfaceFlags::IFF_NOARP)
            && !entry.interface_name.starts_with(OWN_PREFIX);
        let Some(address) = entry.address.filter(|_| carries) else { continue };
        let name = entry.interface_name;
        if let Some(link) = address.as_link_addr() {
            let mac = MacAddr(link.addr().unwrap_or_default());
            let index = u32::try_from(link.ifindex()).unwrap_or_default();
            if link.halen() == 6 && mac != MacAddr::default() {
                found.insert(name.clone(), Device { index, name, mac, uplink: false });
            }
        } else {
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            let v6 = address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
            if v4.or(v6).is_some_and(|ip| node_addresses.contains(&ip)) {
                holders.push(name);
            }
        }
    }
    let uplinks = if chosen.is_empty() { &holders } else { chosen };
    for device in found.values_mut() {
        device.uplink = uplinks.contains(&device.name);
    }
    Ok(found.into_values().collect())
}

/// The devices of default routes. A list that cannot be read has none: the family may be switched off.
fn default_routes() -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut names = default_v4(&read("/proc/net/route"));
    names.extend(default_v6(&read("/proc/net/ipv6_route")));
    names
}

fn default_v4(table: &str) -> Vec<String> {
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let default = rows.filter(|row| {
        let up = row.get(3).and_then(|flags| u32::from_str_radix(flags, 16).ok());
        row.get(1) == Some(&"00000000")
            && row.get(7) == Some(&"00000000")
            && up.is_some_and(|flags| flags & ROUTE_UP != 0)
    });
    default.map(|row| row[0].to_owned()).collect()
}

fn default_v6(table: &str) -> Vec<String> {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // The kernel lists an unreachable default on lo where there is none.
    let default =
        rows.filter(|row| row.get(1) == Some(&"00") && row.get(9).is_some_and(|name| *name != "lo"));
    let all_zero = default.filter(|row| row[0].bytes().all(|digit| digit == b'0'));
    all_zero.map(|row| row[9].to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_found_in_both_tables() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  eth0\t00000000\t0100590A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  eth1\t0000590A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(default_v4(v4), ["eth0"]);
        let zero = "00000000000000000000000000000000";
        let v6 = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth2\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\n\
             fd000000000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001 eth1\n"
        );
        assert_eq!(default_v6(&v6), ["eth2"]);
    }

    #[test]
    fn loopback_is_no_device() {
        let all = devices(&["127.0.0.1".parse().unwrap()], &[]).unwrap();
        assert!(all.iter().all(|device| device.name != "lo" && device.index > 0));
    }
}
