//! A container as the runtime is to make it. [`config`] puts together what the pure parts decide.

pub(crate) mod mounts;
pub(crate) mod resources;
pub(crate) mod security;

use std::collections::HashMap;

use skep_wire::cri::v1;

use crate::{
    cri::{image_spec, labels},
    env::expand::expand,
    pod::model::{PodModel, Unit},
};

/// A container that cannot be configured as its pod asks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The pod forbids root, and the container would be root.
    #[error("container has runAsNonRoot and image will run as root")]
    ImageRunsAsRoot,
    /// The same, by explicit user.
    #[error("container's runAsUser breaks non-root policy")]
    UserIsRoot,
    /// The image's user is a name, so nobody can tell whether it is root.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({0}), cannot verify user is non-root"
    )]
    UnknownUser(String),
    /// A mount names no volume of the pod.
    #[error("volume mount {mount:?} names no volume of the pod")]
    NoVolume {
        /// The mount's volume.
        mount: String,
    },
    /// The sub-path expression names an unknown variable.
    #[error("subPathExpr {0:?} cannot be expanded")]
    SubPath(String),
    /// A feature that this runtime would silently ignore.
    #[error("{0}")]
    Unsupported(String),
}

/// What a container's configuration is put together from.
#[derive(Debug)]
pub(crate) struct ContainerInput<'a> {
    /// The pod.
    pub(crate) model: &'a PodModel,
    /// The container.
    pub(crate) unit: &'a Unit,
    /// Its attempt number.
    pub(crate) attempt: u32,
    /// The image by digest or id.
    pub(crate) image: &'a str,
    /// The environment.
    pub(crate) env: Vec<(String, String)>,
    /// The mounts.
    pub(crate) mounts: Vec<v1::Mount>,
    /// The security context.
    pub(crate) security: v1::LinuxContainerSecurityContext,
    /// The limits.
    pub(crate) resources: v1::LinuxContainerResources,
    /// The file for its last words.
    pub(crate) message_file: String,
}

/// The container's configuration.
pub(crate) fn config(input: ContainerInput<'_>) -> v1::ContainerConfig {
    let container = &input.unit.container;
    let known: HashMap<&str, &str> = input.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let words = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|w| expand(w, |n| known.get(n).map(|v| (*v).to_owned()))).collect()
    };
    let policy = container.termination_message_policy.as_deref().unwrap_or("File");
    let mut labels: HashMap<String, String> = labels::pod(&input.model.id).into_iter().collect();
    labels.insert(labels::CONTAINER_NAME.to_owned(), container.name.clone());
    let annotations = HashMap::from([
        (labels::HASH.to_owned(), input.unit.hash.clone()),
        (labels::MESSAGE_FILE.to_owned(), input.message_file),
        (labels::MESSAGE_POLICY.to_owned(), policy.to_owned()),
        (labels::GRACE.to_owned(), input.model.grace().to_string()),
    ]);
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: container.name.clone(), attempt: input.attempt }),
        image: Some(image_spec(input.image)),
        command: words(&container.command),
        args: words(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        log_path: log_path(&container.name, input.attempt),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        mounts: input.mounts,
        labels,
        annotations,
        envs: input.env.into_iter().map(|(key, value)| v1::KeyValue { key, value }).collect(),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(input.resources),
            security_context: Some(input.security),
        }),
        devices: Vec::new(),
    }
}

/// A run's log file, relative to the pod's log directory.
pub(crate) fn log_path(name: &str, attempt: u32) -> String {
    format!("{name}/{attempt}.log")
}
