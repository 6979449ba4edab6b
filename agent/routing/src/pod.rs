//! What one pod needs: names and link-layer addresses that follow from the sandbox, so that a retry, a restart and a
//! deletion without any state all find the same device.

use std::net::IpAddr;

use skep_model::MacAddr;

use crate::node::{no_ipv6, quiet_ipv6};

/// Prefix of the host side of pod devices.
const PREFIX: &str = "skep";
/// Hexadecimal digits after the prefix: together 15, the longest interface name.
const DIGITS: usize = 11;

/// An address of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodAddress {
    /// The address; it has host length inside the pod.
    pub ip: IpAddr,
    /// What the pod sends everything to.
    pub gateway: IpAddr,
}

/// A pod's pair of devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLink {
    /// Name on the node.
    pub host_name: String,
    /// Name inside the pod.
    pub pod_name: String,
    /// Link-layer address on the node's side.
    pub host_mac: MacAddr,
    /// Link-layer address on the pod's side.
    pub pod_mac: MacAddr,
    /// MTU of both ends.
    pub mtu: u32,
    /// The pod's addresses, at most one a family.
    pub addresses: Vec<PodAddress>,
}

impl PodLink {
    /// The pair of the sandbox's interface.
    #[must_use]
    pub fn new(container_id: &str, ifname: &str, mtu: u32, addresses: Vec<PodAddress>) -> Self {
        let seed = fnv1a(&[container_id, ifname]);
        PodLink {
            host_name: host_name(container_id, ifname),
            pod_name: ifname.into(),
            host_mac: mac(fnv1a(&[container_id, ifname, "host"])),
            pod_mac: mac(seed),
            mtu,
            addresses,
        }
    }

    /// Settings of the node's side. Forwarding is off: when the programs are missing, packets stop here.
    #[must_use]
    pub fn host_sysctls(&self) -> Vec<(String, String)> {
        let name = &self.host_name;
        let mut settings = vec![(format!("net/ipv4/conf/{name}/forwarding"), "0".to_owned())];
        if self.has_v6() {
            settings.extend(quiet_ipv6(name));
        } else {
            settings.push(no_ipv6(name));
        }
        settings
    }

    /// Settings of the pod's side. Without an IPv6 address the interface stays silent in that family; with one it has a
    /// link-local address besides, for programs that expect one, which is usable at once.
    #[must_use]
    pub fn pod_sysctls(&self) -> Vec<(String, String)> {
        if self.has_v6() {
            let settings = [("accept_dad", "0"), ("accept_ra", "0"), ("disable_ipv6", "0")];
            let own = |(key, value): (&str, &str)| {
                (format!("net/ipv6/conf/{}/{key}", self.pod_name), value.to_owned())
            };
            settings.map(own).into()
        } else {
            vec![no_ipv6(&self.pod_name)]
        }
    }

    fn has_v6(&self) -> bool {
        self.addresses.iter().any(|address| address.ip.is_ipv6())
    }
}

/// Name of the node's side of a sandbox's interface.
#[must_use]
pub fn host_name(container_id: &str, ifname: &str) -> String {
    let digits = format!("{:016x}", fnv1a(&[container_id, ifname]));
    format!("{PREFIX}{}", &digits[digits.len() - DIGITS..])
}

/// Whether a device's name is one that [`host_name`] gives.
#[must_use]
pub fn is_host_name(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| {
        rest.len() == DIGITS
            && rest.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

/// A unicast, locally administered address.
fn mac(seed: u64) -> MacAddr {
    let bytes = seed.to_be_bytes();
    MacAddr([0x02, bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

/// FNV-1a, 64 bits, over the parts with a separator.
fn fnv1a(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_node_side_pair_is_not_taken_for_a_pods() {
        for name in ["skep_host", "skep_net", "skep_vxlan", "eth0", "skep0000000000", "skepABCDEF01234"] {
            assert!(!is_host_name(name), "{name}");
        }
    }

    #[test]
    fn both_ends_differ_and_are_local_unicast() {
        let pod = PodLink::new("c1", "eth0", 1450, vec![]);
        assert_ne!(pod.host_mac, pod.pod_mac);
        assert_eq!((pod.host_mac.0[0], pod.pod_mac.0[0]), (2, 2));
    }

    #[test]
    fn without_ipv6_the_interface_is_silent_in_it() {
        let pod = PodLink::new("c1", "eth0", 1450, vec![]);
        assert_eq!(pod.pod_sysctls(), [("net/ipv6/conf/eth0/disable_ipv6".to_owned(), "1".to_owned())]);
    }

    proptest! {
        #[test]
        fn names_fit_and_are_recognised(id in "[0-9a-f]{64}", ifname in "[a-z0-9]{1,15}") {
            let name = host_name(&id, &ifname);
            prop_assert!(name.len() <= 15 && is_host_name(&name));
            prop_assert_eq!(&name, &PodLink::new(&id, &ifname, 1450, vec![]).host_name);
        }
    }
}
