//! One cgroup hierarchy: where it is mounted, what it controls, how a folder in it comes and goes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Legacy or unified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// One tree a controller.
    V1,
    /// One tree for all.
    V2,
}

/// A hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Where it is mounted.
    pub(crate) root: PathBuf,
    /// Its kind.
    pub(crate) version: Version,
    /// What it controls.
    pub(crate) controllers: Vec<String>,
}

/// The hierarchies in a mountinfo, v2 with the controllers it says it has.
pub(crate) fn find(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for (root, version, options) in mountinfo.lines().filter_map(parse) {
        let controllers = match version {
            Version::V1 => {
                options.split(',').filter(|o| *o != "rw" && *o != "ro").map(str::to_owned).collect()
            }
            Version::V2 => {
                let list = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
                list.split_whitespace().map(str::to_owned).collect()
            }
        };
        if !found.iter().any(|h| h.root == root) {
            found.push(Hierarchy { root, version, controllers });
        }
    }
    found
}

fn parse(line: &str) -> Option<(PathBuf, Version, &str)> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let root = PathBuf::from(mount.split(' ').nth(4)?);
    if !root.starts_with("/sys/fs/cgroup") {
        return None;
    }
    let mut words = filesystem.split(' ');
    match (words.next()?, words.nth(1)?) {
        ("cgroup", options) => Some((root, Version::V1, options)),
        ("cgroup2", options) => Some((root, Version::V2, options)),
        _ => None,
    }
}

impl Hierarchy {
    /// Makes `path` and all above it, handing down CPU sets (v1) or controllers (v2).
    pub(crate) fn create(&self, path: &str) -> io::Result<()> {
        let mut at = self.root.clone();
        for part in Path::new(path).components() {
            if self.version == Version::V2 {
                self.delegate(&at);
            }
            let parent = at.clone();
            at.push(part);
            match fs::create_dir(&at) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            if self.controllers.iter().any(|c| c == "cpuset") && self.version == Version::V1 {
                inherit(&parent, &at, "cpuset.cpus")?;
                inherit(&parent, &at, "cpuset.mems")?;
            }
        }
        Ok(())
    }

    /// Lets the children of `at` use every controller; one refusal does not keep the others back.
    fn delegate(&self, at: &Path) {
        let file = at.join("cgroup.subtree_control");
        let given = fs::read_to_string(&file).unwrap_or_default();
        let offered = fs::read_to_string(at.join("cgroup.controllers")).unwrap_or_default();
        let has = |list: &str, name: &str| list.split_whitespace().any(|c| c == name);
        for controller in self.controllers.iter().filter(|c| has(&offered, c) && !has(&given, c)) {
            if let Err(error) = fs::write(&file, format!("+{controller}")) {
                tracing::debug!(at = %at.display(), controller, %error, "controller not delegated");
            }
        }
    }
}

/// An empty v1 CPU set lets no process in: it must be filled from above.
fn inherit(parent: &Path, child: &Path, file: &str) -> io::Result<()> {
    if fs::read_to_string(child.join(file))?.trim().is_empty() {
        fs::write(child.join(file), fs::read_to_string(parent.join(file))?.trim())?;
    }
    Ok(())
}

/// Removes a cgroup folder depth first. A missing one is fine.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_hierarchy_once() {
        let mountinfo = "\
            20 1 0:1 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            21 20 0:2 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
            22 20 0:3 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
            23 20 0:2 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
            24 20 0:9 / /elsewhere rw - cgroup cgroup rw,pids\n";
        let found = find(mountinfo);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(found[1].version, Version::V2);
    }
}
