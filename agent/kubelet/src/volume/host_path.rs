//! Host paths: the check, or creation, that the volume's type asks for.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use super::VolumeError;

/// Makes sure that the path is what the source says.
pub(crate) fn prepare(source: &HostPathVolumeSource) -> Result<(), VolumeError> {
    let path = Path::new(&source.path);
    let wanted = source.type_.as_deref().unwrap_or_default();
    let kind = fs::metadata(path).map(|m| m.file_type()).ok();
    let fine = match wanted {
        "" => {
            // An unchecked path that is missing becomes a directory, as users of other runtimes expect.
            if kind.is_none() {
                fs::create_dir_all(path).map_err(VolumeError::io(path))?;
            }
            true
        }
        "DirectoryOrCreate" => match kind {
            Some(kind) => kind.is_dir(),
            None => {
                fs::create_dir_all(path).map_err(VolumeError::io(path))?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o755))
                    .map_err(VolumeError::io(path))?;
                true
            }
        },
        "FileOrCreate" => match kind {
            Some(kind) => kind.is_file(),
            None => {
                fs::write(path, []).map_err(VolumeError::io(path))?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o644))
                    .map_err(VolumeError::io(path))?;
                true
            }
        },
        "Directory" => kind.is_some_and(|k| k.is_dir()),
        "File" => kind.is_some_and(|k| k.is_file()),
        "Socket" => kind.is_some_and(|k| k.is_socket()),
        "CharDevice" => kind.is_some_and(|k| k.is_char_device()),
        "BlockDevice" => kind.is_some_and(|k| k.is_block_device()),
        _ => false,
    };
    if fine {
        return Ok(());
    }
    let wanted = if wanted.is_empty() { "a path" } else { wanted };
    Err(VolumeError::HostPath { path: source.path.clone(), wanted: wanted.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creates_or_refuses_as_the_type_says() {
        let base = std::env::temp_dir().join(format!("skep-hostpath-{:016x}", rand::random::<u64>()));
        let source = |name: &str, kind: &str| HostPathVolumeSource {
            path: base.join(name).display().to_string(),
            type_: Some(kind.to_owned()),
        };
        assert!(prepare(&source("d", "Directory")).is_err());
        prepare(&source("d", "DirectoryOrCreate")).unwrap();
        prepare(&source("d", "Directory")).unwrap();
        prepare(&source("d/f", "FileOrCreate")).unwrap();
        assert!(prepare(&source("d/f", "DirectoryOrCreate")).is_err());
        assert!(prepare(&source("d/f", "Socket")).is_err());
        fs::remove_dir_all(base).unwrap();
    }
}
