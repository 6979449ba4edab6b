//! What the runtime gives: environment variables and a JSON object on standard input.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::failure::Failure;

/// Where the agent listens unless the configuration says otherwise.
const DEFAULT_SOCKET: &str = "/run/skep/agent.sock";
/// Version that a configuration without one means.
const OLDEST: &str = "0.1.0";

/// The verb that the runtime asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// Which plugin this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plugin {
    Skep,
    Loopback,
}

impl Plugin {
    /// By the name that the program was started under.
    pub(crate) fn of_program(program: Option<&str>) -> Self {
        let name = program.and_then(|program| Path::new(program).file_name());
        if name.is_some_and(|name| name == "loopback") { Plugin::Loopback } else { Plugin::Skep }
    }

    /// Loopback when either says so.
    pub(crate) fn or(self, other: Plugin) -> Plugin {
        if self == Plugin::Loopback { self } else { other }
    }
}

/// The environment variables of the specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Environment {
    pub(crate) verb: Verb,
    pub(crate) container_id: String,
    pub(crate) netns: String,
    pub(crate) ifname: String,
    pub(crate) pod_namespace: String,
    pub(crate) pod_name: String,
    pub(crate) pod_uid: String,
}

impl Environment {
    /// Reads the variables that the verb needs.
    pub(crate) fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let get = |name: &str| variable(name).unwrap_or_default();
        let verb = match get("CNI_COMMAND").as_str() {
            "ADD" => Verb::Add,
            "DEL" => Verb::Del,
            "CHECK" => Verb::Check,
            "GC" => Verb::Gc,
            "STATUS" => Verb::Status,
            "VERSION" => Verb::Version,
            other => return Err(Failure::environment("CNI_COMMAND", other)),
        };
        let arguments = get("CNI_ARGS");
        let argument = |key: &str| -> String {
            let pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
            pairs
                .filter(|(name, _)| *name == key)
                .map(|(_, value)| value.to_owned())
                .next()
                .unwrap_or_default()
        };
        let environment = Environment {
            verb,
            container_id: get("CNI_CONTAINERID"),
            netns: get("CNI_NETNS"),
            ifname: get("CNI_IFNAME"),
            pod_namespace: argument("K8S_POD_NAMESPACE"),
            pod_name: argument("K8S_POD_NAME"),
            pod_uid: argument("K8S_POD_UID"),
        };
        environment.require()
    }

    fn require(self) -> Result<Self, Failure> {
        let attachment = matches!(self.verb, Verb::Add | Verb::Del | Verb::Check);
        if attachment && !is_container_id(&self.container_id) {
            return Err(Failure::environment("CNI_CONTAINERID", &self.container_id));
        }
        if attachment && !is_interface_name(&self.ifname) {
            return Err(Failure::environment("CNI_IFNAME", &self.ifname));
        }
        // DEL comes again with an empty namespace after a reboot, and must succeed.
        if matches!(self.verb, Verb::Add | Verb::Check) && self.netns.is_empty() {
            return Err(Failure::environment("CNI_NETNS", ""));
        }
        Ok(self)
    }
}

/// The specification's own rule.
fn is_container_id(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// The kernel's rule.
fn is_interface_name(text: &str) -> bool {
    let forbidden = |byte: u8| byte == b'/' || byte == b':' || byte.is_ascii_whitespace();
    !text.is_empty() && text.len() <= 15 && text != "." && text != ".." && !text.bytes().any(forbidden)
}

/// The configuration on standard input.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NetConf {
    pub(crate) version: String,
    pub(crate) plugin: Plugin,
    pub(crate) socket: PathBuf,
    /// Attachments that GC must keep.
    pub(crate) valid: Vec<ValidAttachment>,
    /// What an earlier plugin of the chain answered.
    pub(crate) previous: Option<Value>,
}

/// An attachment that the runtime still knows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct ValidAttachment {
    #[serde(rename = "containerID")]
    pub(crate) container_id: String,
    pub(crate) ifname: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    cni_version: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    socket: Option<PathBuf>,
    prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments", default)]
    valid: Vec<ValidAttachment>,
}

impl NetConf {
    /// Parses standard input.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Failure> {
        let document: Document = serde_json::from_slice(text).map_err(Failure::Decode)?;
        Ok(NetConf {
            version: document.cni_version.unwrap_or_else(|| OLDEST.into()),
            plugin: if document.kind.as_deref() == Some("loopback") {
                Plugin::Loopback
            } else {
                Plugin::Skep
            },
            socket: document.socket.unwrap_or_else(|| DEFAULT_SOCKET.into()),
            valid: document.valid,
            previous: document.prev_result,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_input_makes_the_parsers_panic(text: Vec<u8>, verb: String, id: String, arguments: String) {
            let _refused_or_not = NetConf::parse(&text);
            let given = [("CNI_COMMAND", verb), ("CNI_CONTAINERID", id), ("CNI_ARGS", arguments)];
            let of = |name: &str| given.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
            let _refused_or_not = Environment::of(of);
        }
    }

    fn environment(pairs: &[(&str, &str)]) -> Result<Environment, Failure> {
        Environment::of(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_pod_is_read_from_the_arguments() {
        let parsed = environment(&[
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "abc"),
            ("CNI_NETNS", "/run/netns/x"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=u"),
        ])
        .unwrap();
        assert_eq!(
            (parsed.pod_namespace.as_str(), parsed.pod_name.as_str(), parsed.pod_uid.as_str()),
            ("default", "web", "u")
        );
    }

    #[test]
    fn del_needs_no_namespace_but_add_does() {
        let base = [("CNI_CONTAINERID", "abc"), ("CNI_IFNAME", "eth0")];
        assert!(environment(&[&base[..], &[("CNI_COMMAND", "DEL")]].concat()).is_ok());
        assert!(environment(&[&base[..], &[("CNI_COMMAND", "ADD")]].concat()).is_err());
        assert!(environment(&[("CNI_COMMAND", "STATUS")]).is_ok());
    }

    #[test]
    fn ids_and_names_that_could_become_paths_are_refused() {
        for (id, ifname) in
            [("../x", "eth0"), ("a/b", "eth0"), ("", "eth0"), ("a", ".."), ("a", "a/b"), ("a", "")]
        {
            let given = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", id), ("CNI_IFNAME", ifname)];
            assert!(environment(&given).is_err(), "{id:?} {ifname:?}");
        }
    }

    #[test]
    fn either_name_makes_it_the_loopback_plugin() {
        let conf = NetConf::parse(br#"{"cniVersion":"0.3.1","type":"loopback"}"#).unwrap();
        assert_eq!(conf.plugin, Plugin::Loopback);
        assert_eq!(Plugin::of_program(Some("/opt/cni/bin/loopback")), Plugin::Loopback);
        assert_eq!(Plugin::of_program(Some("/opt/cni/bin/skep-cni")).or(Plugin::Skep), Plugin::Skep);
    }

    #[test]
    fn gc_lists_what_to_keep() {
        let text =
            br#"{"cniVersion":"1.1.0","cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]}"#;
        assert_eq!(NetConf::parse(text).unwrap().valid[0].container_id, "a");
    }
}
