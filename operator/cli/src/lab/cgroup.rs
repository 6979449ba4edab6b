//! A node's cgroups: one of the same name in every hierarchy of this machine, v1, v2 or both.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// How often processes are looked for in a cgroup that is being emptied.
const KILL_ROUNDS: usize = 500;
const BASE: &str = "/sys/fs/cgroup";
const V1_CONTROLLERS: [&str; 14] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "net_cls",
    "net_prio",
    "hugetlb",
    "perf_event",
    "rdma",
    "misc",
];

/// Version 1 hierarchies carry their controllers, version 2 is one tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Version {
    /// Mount options that select the hierarchy, such as `cpu` or `name=systemd`.
    V1 {
        /// The options, comma separated.
        options: String,
    },
    /// The unified hierarchy.
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Where it is mounted.
    pub(crate) mount_point: PathBuf,
    /// Its version and controllers.
    pub(crate) version: Version,
}

/// The hierarchies mounted here.
pub(crate) fn hierarchies() -> Result<Vec<Hierarchy>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mount table")?;
    let found = parse(&text);
    if found.is_empty() {
        bail!("no cgroup hierarchy is mounted below {BASE}: mount cgroup2 there");
    }
    Ok(found)
}

fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = mountinfo.lines().filter_map(parse_line).collect();
    found.dedup_by(|a, b| a.mount_point == b.mount_point);
    found
}

fn parse_line(line: &str) -> Option<Hierarchy> {
    let (before, after) = line.split_once(" - ")?;
    let mount_point = PathBuf::from(before.split(' ').nth(4)?);
    let mut fields = after.split(' ');
    let (kind, options) = (fields.next()?, fields.nth(1)?);
    if !mount_point.starts_with(BASE) {
        return None;
    }
    let version = match kind {
        "cgroup2" => Version::V2,
        "cgroup" => {
            let selects = |option: &&str| V1_CONTROLLERS.contains(option) || option.starts_with("name=");
            let options: Vec<&str> = options.split(',').filter(selects).collect();
            Version::V1 { options: options.join(",") }
        }
        _ => return None,
    };
    Some(Hierarchy { mount_point, version })
}

/// Links such as `cpu -> cpu,cpuacct` beside the hierarchies.
pub(crate) fn aliases() -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(BASE)?.flatten() {
        if let Ok(target) = fs::read_link(entry.path()) {
            found.push((entry.file_name().into(), target));
        }
    }
    Ok(found)
}

/// Makes the cgroup `name` in every hierarchy.
pub(crate) fn create(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let path = hierarchy.mount_point.join(name);
        if hierarchy.version == Version::V2 {
            enable_controllers(&hierarchy.mount_point);
        }
        fs::create_dir_all(&path).with_context(|| format!("cannot make the cgroup {}", path.display()))?;
        if path.join("cgroup.clone_children").exists() {
            fs::write(path.join("cgroup.clone_children"), "1")?;
        }
        if matches!(hierarchy.version, Version::V1 { .. }) && path.join("cpuset.cpus").exists() {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                fs::write(path.join(file), fs::read_to_string(hierarchy.mount_point.join(file))?)?;
            }
        }
    }
    Ok(())
}

/// Hands all controllers to the children, as far as the kernel lets us.
fn enable_controllers(cgroup: &Path) {
    let controllers = fs::read_to_string(cgroup.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        // A controller in use by version 1 or by a realtime task cannot be enabled: the rest still can.
        let _ = fs::write(cgroup.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// Moves this process into the cgroup `name` of every hierarchy.
pub(crate) fn enter(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let path = hierarchy.mount_point.join(name).join("cgroup.procs");
        fs::write(&path, "0").with_context(|| format!("cannot join {}", path.display()))?;
    }
    Ok(())
}

/// Inside the node: leaves the root of its version 2 tree for a leaf, because a cgroup that hands out
/// controllers may hold no process itself.
pub(crate) fn leave_root(hierarchies: &[Hierarchy]) -> Result<()> {
    for hierarchy in hierarchies.iter().filter(|hierarchy| hierarchy.version == Version::V2) {
        let leaf = hierarchy.mount_point.join("init");
        fs::create_dir_all(&leaf)?;
        fs::write(leaf.join("cgroup.procs"), "0").context("cannot move pid 1 into its own cgroup")?;
        enable_controllers(&hierarchy.mount_point);
    }
    Ok(())
}

/// Kills every process in the cgroup `name` and below. Before kernel 5.14 there is no switch for it: then one by one,
/// until none is left that could start another.
pub(crate) fn kill(name: &str) -> Result<()> {
    for hierarchy in hierarchies()?.iter().filter(|hierarchy| hierarchy.version == Version::V2) {
        let path = hierarchy.mount_point.join(name);
        let switch = path.join("cgroup.kill");
        if switch.exists() {
            fs::write(&switch, "1").with_context(|| format!("cannot write {}", switch.display()))?;
        } else {
            kill_each(&path)?;
        }
    }
    Ok(())
}

fn kill_each(cgroup: &Path) -> Result<()> {
    for _ in 0..KILL_ROUNDS {
        let found = processes(cgroup);
        if found.is_empty() {
            return Ok(());
        }
        for pid in found {
            // It may have ended meanwhile.
            let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("processes in {} do not end", cgroup.display())
}

/// Processes in a cgroup and below it; a number that is not in this pid namespace is left out.
fn processes(cgroup: &Path) -> Vec<i32> {
    let mut found: Vec<i32> = fs::read_to_string(cgroup.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok().filter(|pid| *pid > 0))
        .collect();
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(processes(&entry.path()));
        }
    }
    found
}

/// Removes the cgroup `name` and what is below it from every hierarchy, after [`kill`]; waits for
/// processes to be gone. A process that is in there by version 1 alone is no part of the node (somebody's
/// shell that looked around): it is moved out.
pub(crate) fn remove(name: &str, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    for hierarchy in hierarchies()? {
        let path = hierarchy.mount_point.join(name);
        while let Err(error) = remove_tree(&path) {
            if Instant::now() > deadline {
                return Err(error).with_context(|| format!("cannot remove the cgroup {}", path.display()));
            }
            if hierarchy.version != Version::V2 {
                move_out(&path, &hierarchy.mount_point);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

fn move_out(cgroup: &Path, parent: &Path) {
    let strangers = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    for pid in strangers.lines() {
        // It may end meanwhile; what stays is tried again.
        let _ = fs::write(parent.join("cgroup.procs"), pid);
    }
}

fn remove_tree(path: &Path) -> std::io::Result<()> {
    let Ok(entries) = fs::read_dir(path) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// Names of cgroups that start with `prefix`, in any hierarchy.
pub(crate) fn names(prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for hierarchy in hierarchies().unwrap_or_default() {
        let Ok(entries) = fs::read_dir(&hierarchy.mount_point) else { continue };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        found.extend(names.filter(|name| name.starts_with(prefix)));
    }
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_version_1_hierarchies_with_their_controllers() {
        let text = "41 40 0:34 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct,clone_children\n\
                    42 40 0:35 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                    43 40 0:36 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate";
        let found = parse(text);
        assert_eq!(found[0].version, Version::V1 { options: "cpu,cpuacct".into() });
        assert_eq!(found[1].version, Version::V1 { options: "name=systemd".into() });
        assert_eq!(found[2].version, Version::V2);
    }

    #[test]
    fn finds_a_pure_version_2_tree_and_ignores_other_mounts() {
        let text = "24 1 8:1 / / rw - ext4 /dev/vda rw\n25 24 0:22 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw";
        let found = parse(text);
        assert_eq!(found, [Hierarchy { mount_point: BASE.into(), version: Version::V2 }]);
    }

    #[test]
    fn kills_one_by_one_where_there_is_no_switch() {
        let tree = tempfile::tempdir().unwrap();
        let below = tree.path().join("pod");
        fs::create_dir(&below).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(tree.path().join("cgroup.procs"), "").unwrap();
        fs::write(below.join("cgroup.procs"), format!("{}\n0\n", child.id())).unwrap();
        assert_eq!(processes(tree.path()), [child.id().cast_signed()]);
        let folder = below.clone();
        let kernel = std::thread::spawn(move || {
            let status = child.wait().unwrap();
            fs::write(folder.join("cgroup.procs"), "").unwrap();
            std::os::unix::process::ExitStatusExt::signal(&status)
        });
        kill_each(tree.path()).unwrap();
        assert_eq!(kernel.join().unwrap(), Some(9));
    }
}
