//! A lab node's root file system, mounted by its pid 1: the node's disk as `/`, the host's programs
//! read-only, fresh kernel file systems of its own, then pivot_root.
//!
//! Nothing here touches the host's mounts: the mount namespace is the node's, and propagation to the
//! host is cut first. Inside, `/` is shared again, because containerd refuses propagated volumes else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::boot::inside;
use super::node_file::Machine;
use crate::lab::cgroup::{self, Hierarchy, Version};

const SYSTEM: [&str; 8] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "dev"];

/// Builds the root of `machine` and moves into it.
pub(crate) fn enter(machine: &Machine, hostname: &str) -> Result<()> {
    let hierarchies = cgroup::hierarchies()?;
    let root = machine.root.as_path();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("cannot make the mounts private")?;
    bind(root, root)?;
    for name in SYSTEM {
        system_folder(root, name)?;
    }
    for (source, target) in &machine.read_only {
        read_only(source, &root.join(inside(target)))?;
    }
    kernel_file_systems(root)?;
    cgroups(root, &hierarchies)?;
    pivot(root)?;
    nix::unistd::sethostname(hostname).context("cannot set the host name")?;
    cgroup::leave_root(&hierarchies)?;
    forwarding()
}

fn system_folder(root: &Path, name: &str) -> Result<()> {
    let source = Path::new("/").join(name);
    let target = root.join(name);
    match fs::symlink_metadata(&source) {
        Ok(found) if found.is_symlink() => {
            if fs::symlink_metadata(&target).is_err() {
                symlink(fs::read_link(&source)?, &target)?;
            }
            Ok(())
        }
        Ok(_) if name == "dev" => bind(&source, &target),
        Ok(_) => read_only(&source, &target),
        Err(_) => Ok(()),
    }
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    make_target(source, target)?;
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("cannot show {} at {}", source.display(), target.display()))
}

fn read_only(source: &Path, target: &Path) -> Result<()> {
    bind(source, target)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("cannot make {} read-only", target.display()))
}

fn make_target(source: &Path, target: &Path) -> Result<()> {
    if target.exists() {
        return Ok(());
    }
    if source.is_dir() {
        return Ok(fs::create_dir_all(target)?);
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::File::create(target)?;
    Ok(())
}

fn fresh(kind: &str, target: &Path, options: Option<&str>) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("cannot make {}", target.display()))?;
    mount(Some(kind), target, Some(kind), MsFlags::empty(), options)
        .with_context(|| format!("cannot mount {kind} on {}", target.display()))
}

fn kernel_file_systems(root: &Path) -> Result<()> {
    fresh("proc", &root.join("proc"), None)?;
    fresh("sysfs", &root.join("sys"), None)?;
    fresh("bpf", &root.join("sys/fs/bpf"), Some("mode=0700"))?;
    fresh("tmpfs", &root.join("run"), Some("mode=0755"))?;
    fresh("tmpfs", &root.join("dev/shm"), Some("mode=1777"))
}

fn cgroups(root: &Path, hierarchies: &[Hierarchy]) -> Result<()> {
    let base = root.join("sys/fs/cgroup");
    if hierarchies.iter().any(|hierarchy| matches!(hierarchy.version, Version::V1 { .. })) {
        mount(Some("tmpfs"), &base, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
            .context("cannot mount the cgroup folder")?;
    }
    for hierarchy in hierarchies {
        let target = root.join(inside(&hierarchy.mount_point));
        match &hierarchy.version {
            Version::V1 { options } => fresh("cgroup", &target, Some(options))?,
            Version::V2 => fresh("cgroup2", &target, None)?,
        }
    }
    for (link, target) in cgroup::aliases()? {
        let link = base.join(link);
        if fs::symlink_metadata(&link).is_err() {
            symlink(target, link)?;
        }
    }
    Ok(())
}

fn pivot(root: &Path) -> Result<()> {
    let old = root.join(".old");
    fs::create_dir_all(&old)?;
    nix::unistd::pivot_root(root, &old).context("cannot move into the node's root")?;
    std::env::set_current_dir("/")?;
    umount2("/.old", MntFlags::MNT_DETACH).context("cannot let go of the host's mounts")?;
    fs::remove_dir("/.old")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>)
        .context("cannot share the node's mounts")
}

/// A node is a router between its pods and the others.
fn forwarding() -> Result<()> {
    for (key, value) in
        [("ipv4/ip_forward", "1"), ("ipv4/conf/all/rp_filter", "0"), ("ipv4/conf/default/rp_filter", "0")]
    {
        let path = PathBuf::from("/proc/sys/net").join(key);
        fs::write(&path, value).with_context(|| format!("cannot set {}", path.display()))?;
    }
    Ok(())
}
