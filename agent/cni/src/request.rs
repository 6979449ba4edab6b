//! What the runtime asks: the environment and the configuration on stdin, parsed once.

use std::{collections::BTreeMap, ffi::OsStr, io::Read, path::Path};

use serde::Deserialize;

use crate::error::CniError;

/// Where the agent listens unless the configuration says otherwise.
const AGENT_SOCKET: &str = "/run/skep/agent.sock";

/// The verbs of CNI 1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Attach.
    Add,
    /// Detach.
    Del,
    /// Compare with what was promised.
    Check,
    /// Detach what the runtime no longer knows.
    Gc,
    /// Whether ADD would be served.
    Status,
    /// Which versions are spoken.
    Version,
}

/// The plugin's part of the configuration.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// The version that the runtime speaks.
    pub cni_version: String,
    /// The plugin's type.
    #[serde(rename = "type", default)]
    pub plugin: String,
    /// The agent's socket.
    #[serde(default = "agent_socket")]
    pub agent_socket: String,
    /// What earlier plugins of the chain made.
    #[serde(default)]
    pub prev_result: Option<serde_json::Value>,
    /// GC: what is still attached.
    #[serde(rename = "cni.dev/valid-attachments", alias = "cni.dev/attachments", default)]
    pub valid_attachments: Vec<ValidAttachment>,
}

/// An attachment that the runtime still knows.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ValidAttachment {
    /// The sandbox.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The interface.
    pub ifname: String,
}

/// The variables of the specification.
#[derive(Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    program: String,
}

fn agent_socket() -> String {
    AGENT_SOCKET.to_owned()
}

impl Network {
    /// Reads and decodes the configuration.
    pub fn read(mut from: impl Read) -> Result<Self, CniError> {
        let mut text = String::new();
        from.read_to_string(&mut text).map_err(|source| CniError::Io { what: "read stdin", source })?;
        Ok(serde_json::from_str(&text)?)
    }
}

impl Environment {
    /// The variables of this process.
    pub fn from_process() -> Self {
        let program = std::env::args_os().next().unwrap_or_default();
        let program = Path::new(&program).file_name().and_then(OsStr::to_str).unwrap_or_default().to_owned();
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("CNI_"))
            .collect();
        Self { variables, program }
    }

    /// Whether the binary was started under this name.
    pub fn invoked_as(&self, name: &str) -> bool {
        self.program == name
    }

    /// The verb.
    pub fn verb(&self) -> Result<Verb, CniError> {
        Ok(match self.required("CNI_COMMAND")? {
            "ADD" => Verb::Add,
            "DEL" => Verb::Del,
            "CHECK" => Verb::Check,
            "GC" => Verb::Gc,
            "STATUS" => Verb::Status,
            "VERSION" => Verb::Version,
            other => {
                let problem = format!("holds the unknown verb {other:?}");
                return Err(CniError::Environment { name: "CNI_COMMAND", problem });
            }
        })
    }

    /// A variable that may be absent or empty.
    pub fn get(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    /// A variable that must be there.
    pub fn required(&self, name: &'static str) -> Result<&str, CniError> {
        match self.get(name) {
            "" => Err(CniError::Environment { name, problem: "is not set".to_owned() }),
            value => Ok(value),
        }
    }

    /// A value of `CNI_ARGS` (`KEY=VALUE;...`), such as `K8S_POD_NAME`.
    pub fn argument(&self, key: &str) -> &str {
        let mut pairs = self.get("CNI_ARGS").split(';').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| *name == key).map_or("", |(_, value)| value)
    }
}

#[cfg(test)]
impl Environment {
    /// An environment made by hand.
    pub fn of(variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Self { variables, program: "skep-cni".into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_verb_and_the_pod() {
        let environment = Environment::of(&[
            ("CNI_COMMAND", "ADD"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=web"),
        ]);
        assert_eq!(environment.verb().unwrap(), Verb::Add);
        assert_eq!(environment.argument("K8S_POD_NAME"), "web");
        assert_eq!(environment.argument("K8S_POD_UID"), "");
    }

    #[test]
    fn names_the_variable_that_is_wrong() {
        assert!(Environment::of(&[]).verb().unwrap_err().to_string().contains("CNI_COMMAND is not set"));
        let unknown = Environment::of(&[("CNI_COMMAND", "FROB")]).verb().unwrap_err();
        assert!(unknown.to_string().contains("FROB"));
    }

    #[test]
    fn reads_the_attachments_that_gc_keeps() {
        let text = r#"{"cniVersion":"1.1.0","name":"skep","type":"skep-cni",
            "cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]}"#;
        let network = Network::read(text.as_bytes()).unwrap();
        assert_eq!(network.valid_attachments[0].container_id, "c1");
        assert_eq!(network.agent_socket, AGENT_SOCKET);
    }
}
