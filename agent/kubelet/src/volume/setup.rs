//! Sets a pod's volumes up and keeps the projected ones fresh.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, ProjectedVolumeSource, Volume, VolumeProjection};

use super::{
    Kind, PodDir, VolumeError,
    atomic::{self, File, Payload},
    host_path, mounts,
    payload::{self, Choice},
};
use crate::{env::fields::NodeFields, objects::Objects, pod::model::PodModel, quantity};

const FILE_MODE: i32 = 0o644;

/// What a set-up needs besides the pod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'a> {
    /// Config maps, secrets, tokens.
    pub(crate) objects: &'a Objects,
    /// What downward files may name of the node.
    pub(crate) node: &'a NodeFields,
    /// The pod's addresses, once known.
    pub(crate) pod_ips: &'a [String],
}

/// A volume that failed, by name.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
pub(crate) struct SetupError {
    volume: String,
    #[source]
    source: VolumeError,
}

/// Sets all volumes up; those that stand are left as they are, projected ones are refreshed.
pub(crate) async fn prepare(model: &PodModel, dir: &PodDir, sources: Sources<'_>) -> Result<(), SetupError> {
    for volume in volumes(model) {
        one(model, dir, volume, sources).await.map_err(named(volume))?;
    }
    Ok(())
}

/// Refreshes the volumes whose content comes from the API.
pub(crate) async fn refresh(model: &PodModel, dir: &PodDir, sources: Sources<'_>) -> Result<(), SetupError> {
    for volume in volumes(model).filter(|v| Kind::of(v).is_projected()) {
        projected(model, &dir.volume(volume), volume, sources).await.map_err(named(volume))?;
    }
    Ok(())
}

/// Whether the pod has volumes to refresh.
pub(crate) fn needs_refresh(model: &PodModel) -> bool {
    volumes(model).any(|v| Kind::of(v).is_projected())
}

fn volumes(model: &PodModel) -> impl Iterator<Item = &Volume> {
    model.spec().and_then(|s| s.volumes.as_deref()).unwrap_or_default().iter()
}

fn named(volume: &Volume) -> impl FnOnce(VolumeError) -> SetupError + use<> {
    let volume = volume.name.clone();
    move |source| SetupError { volume, source }
}

fn fs_group(model: &PodModel) -> Option<u32> {
    let group = model.spec()?.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

async fn one(
    model: &PodModel,
    dir: &PodDir,
    volume: &Volume,
    sources: Sources<'_>,
) -> Result<(), VolumeError> {
    let path = dir.volume(volume);
    match Kind::of(volume) {
        Kind::Unsupported(kind) => Err(VolumeError::Unsupported(kind)),
        Kind::HostPath => volume.host_path.as_ref().map_or(Ok(()), host_path::prepare),
        Kind::EmptyDir => empty_dir(&path, volume.empty_dir.as_ref(), fs_group(model)),
        Kind::Secret | Kind::Projected => {
            mounts::tmpfs(&path, None, 0o1777)?;
            projected(model, &path, volume, sources).await
        }
        Kind::ConfigMap | Kind::DownwardApi => {
            fs::create_dir_all(&path).map_err(VolumeError::io(&path))?;
            projected(model, &path, volume, sources).await
        }
    }
}

fn empty_dir(
    path: &Path,
    source: Option<&EmptyDirVolumeSource>,
    group: Option<u32>,
) -> Result<(), VolumeError> {
    match source.and_then(|s| s.medium.as_deref()) {
        Some("Memory") => {
            let size = source.and_then(|s| s.size_limit.as_ref()).and_then(quantity::whole);
            mounts::tmpfs(path, size, 0o777)?;
        }
        None | Some("") => fs::create_dir_all(path).map_err(VolumeError::io(path))?,
        Some(_) => return Err(VolumeError::Unsupported("emptyDir on huge pages")),
    }
    if group.is_some() {
        chown(path, None, group).map_err(VolumeError::io(path))?;
    }
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(VolumeError::io(path))
}

async fn projected(
    model: &PodModel,
    path: &Path,
    volume: &Volume,
    sources: Sources<'_>,
) -> Result<(), VolumeError> {
    let files = content(model, volume, sources).await?;
    atomic::write(path, &files, fs_group(model)).map(|_| ())
}

async fn content(model: &PodModel, volume: &Volume, sources: Sources<'_>) -> Result<Payload, VolumeError> {
    if let Some(source) = &volume.config_map {
        let choice = Choice {
            items: source.items.as_deref(),
            mode: source.default_mode.unwrap_or(FILE_MODE),
            optional: source.optional == Some(true),
        };
        return config_map(model, &source.name, choice, sources).await;
    }
    if let Some(source) = &volume.secret {
        let choice = Choice {
            items: source.items.as_deref(),
            mode: source.default_mode.unwrap_or(FILE_MODE),
            optional: source.optional == Some(true),
        };
        return secret(model, source.secret_name.as_deref().unwrap_or_default(), choice, sources).await;
    }
    if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(FILE_MODE);
        let items = source.items.as_deref().unwrap_or_default();
        return payload::downward(&model.pod, items, mode, sources.pod_ips, sources.node);
    }
    match &volume.projected {
        Some(source) => all(model, source, sources).await,
        None => Ok(Payload::new()),
    }
}

async fn all(
    model: &PodModel,
    source: &ProjectedVolumeSource,
    sources: Sources<'_>,
) -> Result<Payload, VolumeError> {
    let mode = source.default_mode.unwrap_or(FILE_MODE);
    let mut files = Payload::new();
    for projection in source.sources.iter().flatten() {
        files.extend(projection_files(model, projection, mode, sources).await?);
    }
    Ok(files)
}

async fn projection_files(
    model: &PodModel,
    projection: &VolumeProjection,
    mode: i32,
    sources: Sources<'_>,
) -> Result<Payload, VolumeError> {
    if let Some(source) = &projection.config_map {
        let choice = Choice { items: source.items.as_deref(), mode, optional: source.optional == Some(true) };
        return config_map(model, &source.name, choice, sources).await;
    }
    if let Some(source) = &projection.secret {
        let choice = Choice { items: source.items.as_deref(), mode, optional: source.optional == Some(true) };
        return secret(model, &source.name, choice, sources).await;
    }
    if let Some(source) = &projection.downward_api {
        let items = source.items.as_deref().unwrap_or_default();
        return payload::downward(&model.pod, items, mode, sources.pod_ips, sources.node);
    }
    if let Some(source) = &projection.service_account_token {
        let token = sources.objects.token(model, source).await?;
        let file = File { content: token.into_bytes(), mode: payload::bits(mode) };
        return Ok(Payload::from([(source.path.clone(), file)]));
    }
    Err(VolumeError::Unsupported("projected clusterTrustBundle or podCertificate"))
}

async fn config_map(
    model: &PodModel,
    name: &str,
    choice: Choice<'_>,
    sources: Sources<'_>,
) -> Result<Payload, VolumeError> {
    match sources.objects.config_map(&model.id.namespace, name).await? {
        Some(map) => payload::config_map(&map, choice),
        None if choice.optional => Ok(Payload::new()),
        None => Err(VolumeError::NoObject { kind: "configmap", name: name.to_owned() }),
    }
}

async fn secret(
    model: &PodModel,
    name: &str,
    choice: Choice<'_>,
    sources: Sources<'_>,
) -> Result<Payload, VolumeError> {
    match sources.objects.secret(&model.id.namespace, name).await? {
        Some(secret) => payload::secret(&secret, choice),
        None if choice.optional => Ok(Payload::new()),
        None => Err(VolumeError::NoObject { kind: "secret", name: name.to_owned() }),
    }
}
