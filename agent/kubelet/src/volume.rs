//! A pod's volumes on this node: what is set up where, refreshed how, and taken away safely.
//!
//! Everything of a pod lies under `ROOT/pods/UID`. Files from the API are written by [`atomic`], their content
//! is put together by [`payload`] (pure), mounts are the business of [`mounts`], and [`subpath`] resolves
//! user-chosen paths beneath a volume without ever following them out of it.

pub(crate) mod atomic;
pub(crate) mod host_path;
pub(crate) mod mounts;
pub(crate) mod payload;
pub(crate) mod setup;
pub(crate) mod subpath;

use std::{
    io,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::Volume;

use crate::env::EnvError;

/// A volume that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// The kind is not supported on this node.
    #[error("volume type {0} is not supported by this node")]
    Unsupported(&'static str),
    /// A referenced object does not exist.
    #[error("{kind} \"{name}\" not found")]
    NoObject {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A referenced object has no such key.
    #[error("references non-existent {kind} key: {key}")]
    NoKey {
        /// `config` or `secret`.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// A file name would leave the volume.
    #[error("invalid path {0:?}: it must be relative and must not contain '..'")]
    BadPath(String),
    /// A downward file names something unknown.
    #[error(transparent)]
    Field(#[from] EnvError),
    /// The host's file is not of the wanted type.
    #[error("hostPath type check failed: {path} is not {wanted}")]
    HostPath {
        /// The path.
        path: String,
        /// The type asked for.
        wanted: String,
    },
    /// The API did not answer, or refused.
    #[error("{what}: {source}")]
    Api {
        /// What was asked for.
        what: String,
        /// The answer.
        #[source]
        source: Box<crate::session::CallError>,
    },
    /// The disk said no.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The error.
        #[source]
        source: io::Error,
    },
}

impl VolumeError {
    /// Wraps an error of the file system.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.display().to_string();
        move |source| Self::Io { path, source }
    }
}

/// The directories of one pod.
#[derive(Debug, Clone)]
pub(crate) struct PodDir(PathBuf);

impl PodDir {
    /// The directory of the pod with that uid below the kubelet's root.
    pub(crate) fn new(root: &Path, uid: &str) -> Self {
        Self(root.join("pods").join(uid))
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The pod's hosts file.
    pub(crate) fn hosts_file(&self) -> PathBuf {
        self.0.join("etc-hosts")
    }

    /// The file for the last words of one run of a container.
    pub(crate) fn message_file(&self, container: &str, attempt: u32) -> PathBuf {
        self.0.join("containers").join(container).join(format!("termination-{attempt}"))
    }

    /// Where sub-paths of a volume are bound for a container.
    pub(crate) fn subpath(&self, volume: &str, container: &str, index: usize) -> PathBuf {
        self.0.join("volume-subpaths").join(volume).join(container).join(index.to_string())
    }

    /// Where a volume's content is on the node; a host path is where it says.
    pub(crate) fn volume(&self, volume: &Volume) -> PathBuf {
        if let Some(host) = &volume.host_path {
            return PathBuf::from(&host.path);
        }
        let plugin = match Kind::of(volume) {
            Kind::EmptyDir => "kubernetes.io~empty-dir",
            Kind::ConfigMap => "kubernetes.io~configmap",
            Kind::Secret => "kubernetes.io~secret",
            Kind::DownwardApi => "kubernetes.io~downward-api",
            Kind::Projected => "kubernetes.io~projected",
            Kind::HostPath | Kind::Unsupported(_) => "unsupported",
        };
        self.0.join("volumes").join(plugin).join(&volume.name)
    }
}

/// The kinds of volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Scratch space.
    EmptyDir,
    /// Files of a config map.
    ConfigMap,
    /// Files of a secret.
    Secret,
    /// Fields of the pod as files.
    DownwardApi,
    /// Several of these and tokens in one.
    Projected,
    /// A path of the node.
    HostPath,
    /// Something this node cannot do, by name.
    Unsupported(&'static str),
}

impl Kind {
    /// The kind of a volume; one that names no source is scratch space.
    pub(crate) fn of(volume: &Volume) -> Self {
        let unsupported = [
            (volume.persistent_volume_claim.is_some(), "persistentVolumeClaim"),
            (volume.csi.is_some(), "csi"),
            (volume.ephemeral.is_some(), "ephemeral"),
            (volume.nfs.is_some(), "nfs"),
            (volume.iscsi.is_some(), "iscsi"),
            (volume.image.is_some(), "image"),
            (volume.fc.is_some(), "fc"),
            (volume.git_repo.is_some(), "gitRepo"),
        ];
        if let Some((_, name)) = unsupported.iter().find(|(present, _)| *present) {
            return Self::Unsupported(name);
        }
        if volume.host_path.is_some() {
            Self::HostPath
        } else if volume.config_map.is_some() {
            Self::ConfigMap
        } else if volume.secret.is_some() {
            Self::Secret
        } else if volume.downward_api.is_some() {
            Self::DownwardApi
        } else if volume.projected.is_some() {
            Self::Projected
        } else {
            Self::EmptyDir
        }
    }

    /// Whether the content comes from the API and changes with it.
    pub(crate) fn is_projected(self) -> bool {
        matches!(self, Self::ConfigMap | Self::Secret | Self::DownwardApi | Self::Projected)
    }
}
