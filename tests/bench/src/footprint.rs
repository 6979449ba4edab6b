//! What an idle cluster takes of memory, by process, on a running lab cluster of three nodes.
//!
//! A process counts with its proportional set size (what it shares is divided among the sharers), plus the memory of
//! the eBPF maps that it holds open, which belongs to no process's pages. Of the pages, those of the binary are told
//! apart: the kernel can drop and read them again, and an unoptimized build has several times as many. The peers are
//! the budgets: k3s idle takes several times as much.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;

use crate::report::{Goal, Peer, Report};

const MIB: f64 = 1024.0 * 1024.0;
/// The control plane's budget, MiB.
const CONTROL_PLANE: f64 = 80.0;
/// Agent, proxy and kubelet of one node together, MiB.
const NODE: f64 = 90.0;
const NODE_PROCESSES: [&str; 3] = ["skep-agent", "skep-proxy", "skep-kubelet"];

/// Options of the benchmark.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The cluster's name prefix, as given to `up`.
    #[arg(long, default_value = "skep")]
    prefix: String,
}

/// The memory of one program on one node, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Use {
    pages: u64,
    binary: u64,
    maps: u64,
}

impl Use {
    fn mebibytes(self) -> f64 {
        mebibytes(self.pages + self.maps)
    }
}

fn mebibytes(bytes: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a report in MiB")]
    let bytes = bytes as f64;
    bytes / MIB
}

/// Measures the running cluster.
pub(crate) fn run(args: &Args) -> Result<()> {
    let nodes = nodes(&args.prefix)?;
    if nodes.is_empty() {
        bail!("no cluster with the prefix {:?} is running: start one with `cargo xtask up`", args.prefix);
    }
    let mut report = Report::new("footprint");
    let mut worst = 0.0_f64;
    for (node, cgroup) in &nodes {
        let programs = programs(cgroup)?;
        for (program, used) in &programs {
            let (goal, against) = match program.as_str() {
                "skep-controlplane" => (Goal::AtMost(1.0), CONTROL_PLANE),
                _ => (Goal::None, NODE),
            };
            let name = format!(
                "{program} on {node} (of it maps {:.1}, binary {:.1} MiB)",
                mebibytes(used.maps),
                mebibytes(used.binary)
            );
            report.add(name, used.mebibytes(), "MiB", Peer { name: "budget", value: against }, goal);
        }
        let together =
            NODE_PROCESSES.iter().filter_map(|name| programs.get(*name)).map(|used| used.mebibytes()).sum();
        worst = worst.max(together);
    }
    let name = "agent + proxy + kubelet, the largest node";
    report.add(name, worst, "MiB", Peer { name: "budget", value: NODE }, Goal::AtMost(1.0));
    report.finish()
}

/// The nodes and their cgroups in the version 2 hierarchy.
fn nodes(prefix: &str) -> Result<BTreeMap<String, PathBuf>> {
    let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .into_iter()
        .map(Path::new)
        .find(|path| path.join("cgroup.procs").exists() && path.join("cgroup.controllers").exists())
        .context("no cgroup version 2 hierarchy is mounted here")?;
    let wanted = format!("{prefix}-node-");
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root).context("cannot list the cgroups")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&wanted) {
            found.insert(name[prefix.len() + 1..].to_owned(), entry.path());
        }
    }
    Ok(found)
}

/// Our programs below a cgroup.
fn programs(cgroup: &Path) -> Result<BTreeMap<String, Use>> {
    let mut found: BTreeMap<String, Use> = BTreeMap::new();
    for pid in processes(cgroup)? {
        let Ok(program) = fs::read_link(format!("/proc/{pid}/exe")) else { continue };
        let name = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = name.trim_end_matches(" (deleted)").to_owned();
        if !name.starts_with("skep") && name != "containerd" {
            continue;
        }
        let used = found.entry(name).or_default();
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        used.pages += pages(&rollup, "Pss:");
        used.binary += pages(&rollup, "Pss_File:");
        used.maps += maps(pid);
    }
    Ok(found)
}

fn processes(cgroup: &Path) -> Result<Vec<u32>> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs"))
        .with_context(|| format!("cannot read the processes of {}", cgroup.display()))?;
    let mut found: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in fs::read_dir(cgroup)?.flatten().filter(|entry| entry.path().is_dir()) {
        found.extend(processes(&entry.path()).unwrap_or_default());
    }
    Ok(found)
}

/// A field of a `smaps_rollup`, such as the proportional set size, bytes.
fn pages(rollup: &str, field: &str) -> u64 {
    let line = rollup.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// The memory of the distinct eBPF maps that a process holds open, bytes.
fn maps(pid: u32) -> u64 {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return 0 };
    let infos = descriptors.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    infos.filter_map(|info| map_memory(&info)).collect::<BTreeMap<_, _>>().values().sum()
}

/// A map's id and memory, when the descriptor is one.
fn map_memory(info: &str) -> Option<(u64, u64)> {
    let field =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    Some((field("map_id:")?, field("memlock:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_proportional_size_and_the_maps() {
        let rollup = "Rss:   900 kB\nPss:    12 kB\nPss_Dirty: 3 kB\nPss_File:  5 kB\n";
        assert_eq!((pages(rollup, "Pss:"), pages(rollup, "Pss_File:")), (12 * 1024, 5 * 1024));
        assert_eq!(map_memory("pos:\t0\nmap_type:\t1\nmemlock:\t4096\nmap_id:\t7\n"), Some((7, 4096)));
        assert_eq!(map_memory("pos:\t0\nflags:\t02\n"), None);
    }
}
