//! Puts the CNI plugin and its configuration on the node.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Names on the node.
const PLUGIN: &str = "skep-cni";
const LOOPBACK: &str = "loopback";
const CONFLIST: &str = "05-skep.conflist";

/// Why the plugin is not installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub(crate) struct InstallError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_path_buf();
    move |source| InstallError { action, path, source }
}

/// Copies the plugin into `folder`, replacing an older one in one step, and links it as `loopback` where there is none:
/// some runtimes demand that plugin.
pub(crate) fn install_plugin(binary: &Path, folder: &Path) -> Result<(), InstallError> {
    fs::create_dir_all(folder).map_err(at("create", folder))?;
    let (plugin, loopback) = (folder.join(PLUGIN), folder.join(LOOPBACK));
    let ours = same_file(&plugin, &loopback);
    if !same_content(binary, &plugin) {
        let staging = folder.join(format!(".{PLUGIN}.new"));
        fs::copy(binary, &staging).map_err(at("copy the plugin to", &staging))?;
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&staging, executable).map_err(at("make executable", &staging))?;
        fs::rename(&staging, &plugin).map_err(at("put in place", &plugin))?;
    }
    if ours || !loopback.exists() {
        let staging = folder.join(format!(".{LOOPBACK}.new"));
        let _leftover = fs::remove_file(&staging);
        fs::hard_link(&plugin, &staging).map_err(at("link", &staging))?;
        fs::rename(&staging, &loopback).map_err(at("put in place", &loopback))?;
        // Renaming one name of a file over another of the same file does nothing and leaves both.
        let _leftover = fs::remove_file(&staging);
    }
    Ok(())
}

/// Writes the configuration that makes runtimes call the plugin, in place: containerd 1.6 does not notice a rename.
pub(crate) fn write_conflist(folder: &Path) -> Result<(), InstallError> {
    fs::create_dir_all(folder).map_err(at("create", folder))?;
    let path = folder.join(CONFLIST);
    let wanted = conflist();
    if fs::read_to_string(&path).is_ok_and(|now| now == wanted) {
        return Ok(());
    }
    fs::write(&path, wanted).map_err(at("write", &path))
}

/// Runtimes that know 1.1 take the newest version of the second list; older ones see the first field only.
fn conflist() -> String {
    let list = serde_json::json!({
        "cniVersion": "1.0.0",
        "cniVersions": ["1.0.0", "1.1.0"],
        "name": "skep",
        "plugins": [{"type": PLUGIN}],
    });
    format!("{list:#}\n")
}

fn same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

fn same_content(one: &Path, other: &Path) -> bool {
    let length = |path: &Path| fs::metadata(path).map(|metadata| metadata.len()).ok();
    length(one).is_some_and(|one| length(other) == Some(one))
        && matches!((fs::read(one), fs::read(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_replaces_both_names() {
        let folder = tempfile::tempdir().unwrap();
        let (binary, bin) = (folder.path().join("skep-cni"), folder.path().join("bin"));
        for text in ["one", "two", "two"] {
            fs::write(&binary, text).unwrap();
            install_plugin(&binary, &bin).unwrap();
            assert_eq!(fs::read_to_string(bin.join("skep-cni")).unwrap(), text);
            assert_eq!(fs::read_to_string(bin.join("loopback")).unwrap(), text);
            assert_eq!(fs::read_dir(&bin).unwrap().count(), 2);
        }
        assert_eq!(fs::metadata(bin.join("skep-cni")).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn a_loopback_plugin_of_somebody_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("binary");
        fs::write(&binary, "ours").unwrap();
        fs::write(folder.path().join("loopback"), "theirs").unwrap();
        install_plugin(&binary, folder.path()).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("loopback")).unwrap(), "theirs");
    }

    #[test]
    fn the_configuration_is_written_once_and_parses() {
        let folder = tempfile::tempdir().unwrap();
        write_conflist(folder.path()).unwrap();
        let path = folder.path().join(CONFLIST);
        let before = fs::metadata(&path).unwrap().mtime_nsec();
        write_conflist(folder.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mtime_nsec(), before);
        let list: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(list["plugins"][0]["type"], "skep-cni");
    }
}
