//! What success looks like on standard output.

use serde_json::{Value, json};
use skep_wire::agent::AddReply;

use crate::{
    config::{Environment, NetConf},
    failure::Failure,
};

/// Versions of the result format that this plugin writes. Older ones have another shape.
pub(crate) const SUPPORTED: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The newest of them.
pub(crate) const NEWEST: &str = "1.1.0";

/// Refuses versions that this plugin does not write.
pub(crate) fn check_version(version: &str) -> Result<(), Failure> {
    if SUPPORTED.contains(&version) { Ok(()) } else { Err(Failure::Version(version.into())) }
}

/// The answer to VERSION.
pub(crate) fn versions(conf: Option<&NetConf>) -> String {
    let version = conf.map_or(NEWEST, |conf| conf.version.as_str());
    json!({"cniVersion": version, "supportedVersions": SUPPORTED}).to_string()
}

/// The answer to ADD.
pub(crate) fn add(reply: &AddReply, environment: &Environment, version: &str) -> String {
    let host = reply.host.clone().unwrap_or_default();
    let pod = reply.pod.clone().unwrap_or_default();
    let interfaces = [
        interface(&host.name, &host.mac, host.mtu, "", version),
        interface(&pod.name, &pod.mac, pod.mtu, &environment.netns, version),
    ];
    let ips: Vec<Value> =
        reply.addresses.iter().map(|address| ip(&address.cidr, Some(&address.gateway), 1, version)).collect();
    let routes: Vec<Value> = reply
        .routes
        .iter()
        .map(|route| {
            if version == "1.1.0" {
                json!({"dst": route.destination, "gw": route.gateway, "mtu": route.mtu})
            } else {
                json!({"dst": route.destination, "gw": route.gateway})
            }
        })
        .collect();
    json!({"cniVersion": version, "interfaces": interfaces, "ips": ips, "routes": routes, "dns": {}})
        .to_string()
}

/// The answer to ADD of the loopback plugin.
pub(crate) fn loopback(environment: &Environment, version: &str) -> String {
    let lo = interface(&environment.ifname, "00:00:00:00:00:00", 65_536, &environment.netns, version);
    let ips = [ip("127.0.0.1/8", None, 0, version), ip("::1/128", None, 0, version)];
    json!({"cniVersion": version, "interfaces": [lo], "ips": ips, "dns": {}}).to_string()
}

fn interface(name: &str, mac: &str, mtu: u32, sandbox: &str, version: &str) -> Value {
    let mut value = json!({"name": name, "mac": mac});
    if version == "1.1.0" {
        value["mtu"] = mtu.into();
    }
    if !sandbox.is_empty() {
        value["sandbox"] = sandbox.into();
    }
    value
}

/// Before 1.0.0 an address had to name its family.
fn ip(cidr: &str, gateway: Option<&str>, interface: usize, version: &str) -> Value {
    let mut value = json!({"address": cidr, "interface": interface});
    if let Some(gateway) = gateway {
        value["gateway"] = gateway.into();
    }
    if version.starts_with("0.") {
        value["version"] = if cidr.contains(':') { "6" } else { "4" }.into();
    }
    value
}

#[cfg(test)]
mod tests {
    use skep_wire::agent::{Address, Interface, Route};

    use super::*;
    use crate::config::Verb;

    fn environment() -> Environment {
        Environment {
            verb: Verb::Add,
            container_id: "c".into(),
            netns: "/run/netns/x".into(),
            ifname: "eth0".into(),
            pod_namespace: String::new(),
            pod_name: String::new(),
            pod_uid: String::new(),
        }
    }

    fn reply() -> AddReply {
        AddReply {
            host: Some(Interface { name: "skep1".into(), mac: "02:00:00:00:00:01".into(), mtu: 1450 }),
            pod: Some(Interface { name: "eth0".into(), mac: "02:00:00:00:00:02".into(), mtu: 1450 }),
            addresses: vec![Address { cidr: "10.244.0.7/32".into(), gateway: "10.244.0.1".into() }],
            routes: vec![Route { destination: "0.0.0.0/0".into(), gateway: "10.244.0.1".into(), mtu: 1450 }],
        }
    }

    #[test]
    fn the_address_points_to_the_pods_interface() {
        let shown: Value = serde_json::from_str(&add(&reply(), &environment(), "1.0.0")).unwrap();
        let at = shown["ips"][0]["interface"].as_u64().unwrap();
        assert_eq!(shown["interfaces"][at as usize]["sandbox"], "/run/netns/x");
        assert!(shown["interfaces"][0].get("sandbox").is_none());
        assert!(shown["ips"][0].get("version").is_none());
    }

    #[test]
    fn each_version_has_its_own_fields() {
        let old: Value = serde_json::from_str(&add(&reply(), &environment(), "0.4.0")).unwrap();
        assert_eq!(old["ips"][0]["version"], "4");
        let new: Value = serde_json::from_str(&add(&reply(), &environment(), "1.1.0")).unwrap();
        assert_eq!((&new["interfaces"][1]["mtu"], &new["routes"][0]["mtu"]), (&json!(1450), &json!(1450)));
    }

    #[test]
    fn unknown_versions_are_refused_with_the_known_ones_named() {
        let error = check_version("2.0.0").unwrap_err();
        assert_eq!(error.code(), 1);
        assert!(error.to_string().contains("1.1.0"));
    }
}
