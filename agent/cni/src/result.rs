//! The result objects of the specification, in the form of the version asked for.

use serde_json::{Value, json};
use skep_wire::agent::{AddReply, Interface};

use crate::{
    error::CniError,
    request::{Environment, Network},
};

/// The newest version that is spoken.
pub const NEWEST: &str = "1.1.0";
/// All of them.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", NEWEST];

/// The answer to VERSION.
pub fn versions() -> Value {
    json!({"cniVersion": NEWEST, "supportedVersions": VERSIONS})
}

/// Refuses a version that is not spoken.
pub fn check_version(version: &str) -> Result<(), CniError> {
    if VERSIONS.contains(&version) { Ok(()) } else { Err(CniError::Version(version.to_owned())) }
}

/// The result of ADD for `lo`: what came before, or the interface alone.
pub fn loopback(network: &Network, environment: &Environment) -> Value {
    network.prev_result.clone().unwrap_or_else(|| {
        json!({
            "cniVersion": network.cni_version,
            "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": environment.get("CNI_NETNS")}],
            "ips": [{"address": "127.0.0.1/8", "interface": 0}, {"address": "::1/128", "interface": 0}],
            "dns": {},
        })
    })
}

/// The result of ADD: the host's interface first, the pod's second, to which the addresses belong.
pub fn added(network: &Network, netns: &str, reply: &AddReply) -> Value {
    let interface = |interface: &Interface, sandbox: Option<&str>| {
        let mut value = json!({"name": interface.name, "mac": interface.mac});
        if network.cni_version.as_str() >= "1.1.0" && interface.mtu > 0 {
            value["mtu"] = json!(interface.mtu);
        }
        if let Some(sandbox) = sandbox {
            value["sandbox"] = json!(sandbox);
        }
        value
    };
    let interfaces: Vec<_> = reply
        .host
        .iter()
        .map(|host| interface(host, None))
        .chain(reply.pod.iter().map(|pod| interface(pod, Some(netns))))
        .collect();
    let ips: Vec<_> = reply
        .addresses
        .iter()
        .map(|address| {
            let mut ip = json!({"address": address.cidr, "interface": interfaces.len().saturating_sub(1)});
            if !address.gateway.is_empty() {
                ip["gateway"] = json!(address.gateway);
            }
            if network.cni_version.as_str() < "1.0.0" {
                ip["version"] = json!(if address.cidr.contains(':') { "6" } else { "4" });
            }
            ip
        })
        .collect();
    let routes: Vec<_> = reply
        .routes
        .iter()
        .map(|route| {
            let mut value = json!({"dst": route.destination});
            if !route.gateway.is_empty() {
                value["gw"] = json!(route.gateway);
            }
            value
        })
        .collect();
    json!({
        "cniVersion": network.cni_version,
        "interfaces": interfaces,
        "ips": ips,
        "routes": routes,
        "dns": {},
    })
}

#[cfg(test)]
mod tests {
    use skep_wire::agent::{Address, Route};

    use super::*;

    fn network(version: &str) -> Network {
        let text = format!(r#"{{"cniVersion":"{version}","name":"skep","type":"skep-cni"}}"#);
        Network::read(text.as_bytes()).unwrap()
    }

    fn reply() -> AddReply {
        let interface =
            |name: &str| Interface { name: name.into(), mac: "02:00:00:00:00:01".into(), mtu: 1450 };
        AddReply {
            host: Some(interface("skep1234")),
            pod: Some(interface("eth0")),
            addresses: vec![Address { cidr: "10.244.1.7/32".into(), gateway: "10.244.1.1".into() }],
            routes: vec![Route { destination: "0.0.0.0/0".into(), gateway: "10.244.1.1".into(), mtu: 0 }],
        }
    }

    #[test]
    fn addresses_belong_to_the_pods_interface() {
        let value = added(&network("1.0.0"), "/run/netns/x", &reply());
        assert_eq!(value["ips"][0]["interface"], 1);
        assert_eq!(value["interfaces"][1]["sandbox"], "/run/netns/x");
        assert!(
            value["interfaces"][0].get("sandbox").is_none() && value["interfaces"][0].get("mtu").is_none()
        );
        assert!(value["ips"][0].get("version").is_none());
    }

    #[test]
    fn each_version_gets_its_own_form() {
        assert_eq!(added(&network("0.4.0"), "", &reply())["ips"][0]["version"], "4");
        assert_eq!(added(&network("1.1.0"), "", &reply())["interfaces"][1]["mtu"], 1450);
    }

    #[test]
    fn a_version_from_elsewhere_is_refused() {
        assert!(check_version("1.1.0").is_ok());
        assert!(matches!(check_version("9.9.9"), Err(CniError::Version(_))));
    }
}
