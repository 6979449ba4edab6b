//! The mounts of a container: its volumes, the hosts file, the file for its last words.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::VolumeMount;
use skep_wire::cri::v1;

use super::ConfigError;
use crate::{
    env::expand::expand,
    pod::model::{PodModel, Unit},
    volume::{Kind, PodDir, VolumeError, subpath},
};

/// A mount that cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    /// The pod asks for something impossible.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The sub-path cannot be bound, or a file cannot be written.
    #[error("failed to prepare subPath for volumeMount {volume:?}: {source}")]
    SubPath {
        /// The volume.
        volume: String,
        /// Why.
        #[source]
        source: VolumeError,
    },
}

/// The mounts that the container's specification asks for; sub-paths are bound on the way.
pub(crate) fn volumes(
    model: &PodModel,
    unit: &Unit,
    dir: &PodDir,
    env: &HashMap<&str, &str>,
) -> Result<Vec<v1::Mount>, MountError> {
    let mounts = unit.container.volume_mounts.as_deref().unwrap_or_default();
    mounts.iter().enumerate().map(|(index, mount)| one(model, unit, dir, env, index, mount)).collect()
}

fn one(
    model: &PodModel,
    unit: &Unit,
    dir: &PodDir,
    env: &HashMap<&str, &str>,
    index: usize,
    mount: &VolumeMount,
) -> Result<v1::Mount, MountError> {
    let volumes = model.spec().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    let volume = volumes
        .iter()
        .find(|v| v.name == mount.name)
        .ok_or_else(|| ConfigError::NoVolume { mount: mount.name.clone() })?;
    if mount.recursive_read_only.as_deref() == Some("Enabled") {
        let why = "recursive read-only mounts need a newer container runtime than this node has".to_owned();
        return Err(ConfigError::Unsupported(why).into());
    }
    let mut source = dir.volume(volume);
    if let Some(sub_path) = sub_path(mount, env)? {
        let target = dir.subpath(&volume.name, unit.name(), index);
        subpath::bind(&source, &sub_path, &target)
            .map_err(|source| MountError::SubPath { volume: volume.name.clone(), source })?;
        source = target;
    }
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional,
        _ => v1::MountPropagation::PropagationPrivate,
    };
    Ok(v1::Mount {
        container_path: absolute(&mount.mount_path),
        host_path: source.display().to_string(),
        readonly: mount.read_only.unwrap_or(false) || Kind::of(volume).is_projected(),
        propagation: propagation.into(),
        ..v1::Mount::default()
    })
}

fn sub_path(mount: &VolumeMount, env: &HashMap<&str, &str>) -> Result<Option<String>, ConfigError> {
    if let Some(expression) = mount.sub_path_expr.as_deref().filter(|e| !e.is_empty()) {
        let expanded = expand(expression, |name| env.get(name).map(|v| (*v).to_owned()));
        if expanded.contains("$(") {
            return Err(ConfigError::SubPath(expression.to_owned()));
        }
        return Ok(Some(expanded));
    }
    Ok(mount.sub_path.clone().filter(|p| !p.is_empty()))
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// The mount of the pod's hosts file, unless the container brings its own.
pub(crate) fn hosts(unit: &Unit, file: &Path) -> Option<v1::Mount> {
    let own = unit.container.volume_mounts.iter().flatten().any(|m| m.mount_path == "/etc/hosts");
    (!own).then(|| v1::Mount {
        container_path: "/etc/hosts".to_owned(),
        host_path: file.display().to_string(),
        ..v1::Mount::default()
    })
}

/// Makes the file for the container's last words and mounts it.
pub(crate) fn termination_message(unit: &Unit, file: &PathBuf) -> Result<Option<v1::Mount>, VolumeError> {
    let path = unit.container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    if path.is_empty() {
        return Ok(None);
    }
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent).map_err(VolumeError::io(parent))?;
    }
    fs::write(file, []).map_err(VolumeError::io(file))?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o666)).map_err(VolumeError::io(file))?;
    Ok(Some(v1::Mount {
        container_path: absolute(path),
        host_path: file.display().to_string(),
        ..v1::Mount::default()
    }))
}
