//! The node file: what a node's pid 1 has to run, and the machine to make around it first.
//!
//! JSON, or YAML for people. On a real machine `machine` is absent and only the services count.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Everything `skep init` knows about its node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeFile {
    /// The node's host name.
    pub(crate) name: String,
    /// Present on a lab node: namespaces, cgroups and a root file system of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) machine: Option<Machine>,
    /// Folder of the services' log files, as the services see it.
    pub(crate) log_dir: PathBuf,
    /// Where pid 1 writes what it is doing, as the services see it.
    pub(crate) status_file: PathBuf,
    /// Started in this order, stopped in the opposite one.
    pub(crate) services: Vec<Service>,
}

/// The isolation of a lab node. Paths are the host's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Machine {
    /// The node's network namespace, made beforehand.
    pub(crate) netns: PathBuf,
    /// Name of the node's cgroup, the same in every hierarchy, made beforehand.
    pub(crate) cgroup: String,
    /// The node's disk: becomes its `/`.
    pub(crate) root: PathBuf,
    /// Host folders and files shown read-only inside: source to target.
    pub(crate) read_only: BTreeMap<PathBuf, PathBuf>,
    /// A socket opened on the host and inherited by the services that ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<SocketAddr>,
}

/// One supervised process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    /// Name of the service and of its log file.
    pub(crate) name: String,
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// Files that must exist before it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) needs: Vec<PathBuf>,
    /// Pass the inherited listener as standard input (`--listen-fd 0`).
    #[serde(default)]
    pub(crate) listener: bool,
    /// How long it may take to stop before it is killed.
    #[serde(default = "default_stop_seconds")]
    pub(crate) stop_seconds: u64,
    /// Environment on top of the inherited one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) env: BTreeMap<String, String>,
}

fn default_stop_seconds() -> u64 {
    10
}

impl Service {
    /// How long it may take to stop.
    pub(crate) fn stop_timeout(&self) -> Duration {
        Duration::from_secs(self.stop_seconds)
    }
}

/// Why a node file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeFileError {
    /// The file cannot be read.
    #[error("cannot read the node file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a node file.
    #[error("{path} is not a node file: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_yaml_ng::Error,
    },
    /// A service that cannot be started.
    #[error("service {name:?} in {path}: {problem}")]
    Service {
        /// The file.
        path: PathBuf,
        /// The service.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl NodeFile {
    /// Reads and checks a node file.
    pub(crate) fn read(path: &Path) -> Result<Self, NodeFileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| NodeFileError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, NodeFileError> {
        let file: Self = serde_yaml_ng::from_str(text)
            .map_err(|source| NodeFileError::Parse { path: path.to_owned(), source })?;
        let mut seen = std::collections::BTreeSet::new();
        for service in &file.services {
            let problem = match () {
                () if service.command.is_empty() => "it has no command",
                () if service.name.is_empty() || service.name.contains('/') => {
                    "the name cannot be a file name"
                }
                () if !seen.insert(service.name.as_str()) => "the name is used twice",
                () => continue,
            };
            return Err(NodeFileError::Service {
                path: path.to_owned(),
                name: service.name.clone(),
                problem,
            });
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
name: node-1
log_dir: /var/log/skep
status_file: /run/skep/init.json
services:
- name: containerd
  command: [containerd]
- name: kubelet
  command: [skep-kubelet, --node-name, node-1]
  needs: [/etc/skep/bootstrap.kubeconfig]
";

    #[test]
    fn reads_yaml_with_defaults() {
        let file = NodeFile::parse(Path::new("f"), TEXT).unwrap();
        assert_eq!(file.services[0].stop_timeout(), Duration::from_secs(10));
        assert!(file.machine.is_none() && !file.services[1].listener);
    }

    #[test]
    fn json_round_trips() {
        let file = NodeFile::parse(Path::new("f"), TEXT).unwrap();
        let json = serde_json::to_string(&file).unwrap();
        assert_eq!(NodeFile::parse(Path::new("f"), &json).unwrap(), file);
    }

    #[test]
    fn refuses_a_name_used_twice_and_an_unknown_field() {
        let twice = TEXT.replace("name: kubelet", "name: containerd");
        assert!(NodeFile::parse(Path::new("f"), &twice).unwrap_err().to_string().contains("twice"));
        let unknown = TEXT.replace("needs:", "wants:");
        assert!(NodeFile::parse(Path::new("f"), &unknown).is_err());
    }
}
