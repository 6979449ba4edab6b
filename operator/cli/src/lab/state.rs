//! The record of a lab cluster in its folder: the plan, and each node's pid 1. It is written before
//! the first thing is made, so that `skep down` finds everything after a crash half way.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::plan::Plan;

/// A host process that is still the one that was started: pids are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    /// The process id on the host.
    pub(crate) pid: i32,
    /// Its start time in clock ticks since the machine's start.
    pub(crate) start: u64,
}

impl ProcessId {
    /// The process with this id as it is now.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, start: start_time(&stat)? })
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        start_time(&stat) == Some(self.start) && !stat.contains(") Z ")
    }
}

/// Field 22 of a stat line; the name in parentheses may hold anything.
fn start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

fn plan_file(dir: &Path) -> PathBuf {
    dir.join("cluster.json")
}

/// The cluster recorded in `dir`, if there is one.
pub(crate) fn load(dir: &Path) -> Result<Option<Plan>> {
    let path = plan_file(dir);
    match fs::read(&path) {
        Ok(bytes) => {
            let plan = serde_json::from_slice(&bytes);
            plan.map(Some).with_context(|| format!("{} is not a cluster's record", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Records the cluster.
pub(crate) fn save(plan: &Plan) -> Result<()> {
    fs::create_dir_all(&plan.dir).with_context(|| format!("cannot make {}", plan.dir.display()))?;
    write_whole(&plan_file(&plan.dir), &serde_json::to_vec_pretty(plan)?)
}

/// The recorded pid 1 of the node in `node_dir`, if it is alive.
pub(crate) fn living_init(node_dir: &Path) -> Option<ProcessId> {
    let bytes = fs::read(node_dir.join("init.json")).ok()?;
    let process: ProcessId = serde_json::from_slice(&bytes).ok()?;
    process.is_alive().then_some(process)
}

/// Records a node's pid 1.
pub(crate) fn save_init(node_dir: &Path, process: ProcessId) -> Result<()> {
    write_whole(&node_dir.join("init.json"), &serde_json::to_vec(&process)?)
}

/// Replaces a file, so that a reader sees the old or the new one.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, bytes).with_context(|| format!("cannot write {}", fresh.display()))?;
    fs::rename(&fresh, path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::address::Families;
    use crate::lab::plan::Store;

    #[test]
    fn start_time_survives_parentheses_in_the_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 10 11";
        assert_eq!(start_time(stat), Some(987_654));
    }

    #[test]
    fn knows_itself_alive_and_a_reused_pid_dead() {
        let me = ProcessId::of(std::process::id().try_into().unwrap()).unwrap();
        assert!(me.is_alive());
        assert!(!ProcessId { start: me.start + 1, ..me }.is_alive());
    }

    #[test]
    fn a_saved_cluster_is_loaded_and_none_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).unwrap(), None);
        let plan = Plan {
            prefix: "p".into(),
            nodes: 2,
            store: Store::Etcd,
            api_port: 1,
            families: Families::Dual,
            dir: dir.path().to_owned(),
        };
        save(&plan).unwrap();
        assert_eq!(load(dir.path()).unwrap(), Some(plan));
    }

    #[test]
    fn a_record_from_before_there_were_families_is_of_ipv4() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"prefix": "p", "nodes": 2, "store": "etcd", "api_port": 1, "dir": "/d"}"#;
        fs::write(plan_file(dir.path()), text).unwrap();
        assert_eq!(load(dir.path()).unwrap().unwrap().families, Families::Ipv4);
    }
}
