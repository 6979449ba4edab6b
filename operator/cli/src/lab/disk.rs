//! A node's disk: the folders and files it boots with. Making it again leaves what the node wrote.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};

use super::plan::{BOOTSTRAP, CONTROL_PLANE_DIR, NodeNumber, Plan};
use super::state::write_whole;
use crate::init::boot::inside;

const FOLDERS: [&str; 18] = [
    "/etc/cni/net.d",
    "/etc/containerd",
    "/etc/skep",
    "/opt/cni/bin",
    "/opt/skep/bin",
    "/proc",
    "/root",
    "/run",
    "/sys",
    "/tmp",
    "/var/lib/containerd",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/lib/skep/agent",
    "/var/log/containers",
    "/var/log/pods",
    "/var/log/skep",
    "/var/tmp",
];
/// Small files of the host that programs look up.
const COPIED: [&str; 8] = [
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/protocols",
    "/etc/services",
    "/etc/os-release",
];
/// Read by containerd 1.6 and, after its own migration, by 2.x. `restrict_oom_score_adj` because a
/// container host without CAP_SYS_RESOURCE could start no sandbox else.
const CONTAINERD_CONFIG: &str = r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]

[grpc]
address = "/run/containerd/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
path = "/var/lib/containerd/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "skep.local/pause:dev"
restrict_oom_score_adj = true
disable_apparmor = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "SNAPSHOTTER"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
conf_dir = "/etc/cni/net.d"
"#;

/// Makes the folders and writes the files of a node.
pub(crate) fn prepare(plan: &Plan, node: NodeNumber) -> Result<()> {
    let root = plan.root(node);
    for folder in FOLDERS {
        let path = root.join(inside(Path::new(folder)));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    let run = root.join("var/run");
    if fs::symlink_metadata(&run).is_err() {
        symlink("/run", &run)?;
    }
    for file in COPIED {
        if Path::new(file).exists() {
            fs::copy(file, root.join(inside(Path::new(file))))
                .with_context(|| format!("cannot copy {file}"))?;
        }
    }
    let snapshotter = if is_overlay(&root)? { "native" } else { "overlayfs" };
    let config = CONTAINERD_CONFIG.replace("SNAPSHOTTER", snapshotter);
    write_whole(&root.join("etc/containerd/config.toml"), config.as_bytes())?;
    write_whole(&root.join("etc/hostname"), format!("{}\n", node.name()).as_bytes())?;
    write_whole(&root.join("etc/hosts"), hosts(plan, node).as_bytes())?;
    // No resolver: a lab node reaches nothing outside, and a lookup that fails at once says so.
    write_whole(&root.join("etc/resolv.conf"), b"")?;
    write_whole(&plan.node_dir(node).join("node.json"), &serde_json::to_vec_pretty(&plan.node_file(node))?)
}

fn hosts(plan: &Plan, node: NodeNumber) -> String {
    let own = plan.families.node(node).into_iter().map(|(ip, _)| format!("{ip} {}\n", node.name()));
    let v6 = if plan.families.has_v6() { "::1 localhost ip6-localhost\n" } else { "" };
    format!("127.0.0.1 localhost\n{v6}{}", own.collect::<String>())
}

/// overlayfs cannot be stacked on overlayfs, which is what a container's own files are on.
fn is_overlay(path: &Path) -> Result<bool> {
    Ok(statfs(path)?.filesystem_type() == OVERLAYFS_SUPER_MAGIC)
}

/// Gives a node the credential to join with, made by the control plane. False while there is none yet.
pub(crate) fn hand_out_bootstrap(plan: &Plan, node: NodeNumber) -> Result<bool> {
    let made =
        plan.root(NodeNumber(1)).join(inside(Path::new(CONTROL_PLANE_DIR))).join("bootstrap.kubeconfig");
    let Ok(bytes) = fs::read(made) else { return Ok(false) };
    let target = plan.root(node).join(inside(Path::new(BOOTSTRAP)));
    if fs::read(&target).is_ok_and(|existing| existing == bytes) {
        return Ok(true);
    }
    write_whole(&target, &bytes)?;
    Ok(true)
}
