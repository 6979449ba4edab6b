//! `skep down`: removes a lab cluster, also after a crash half way. What is to be removed is what the
//! record in its folder names and whatever else on this machine carries its prefix.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::lab::address::Families;
use crate::lab::plan::{NodeNumber, Plan, Store};
use crate::lab::{cgroup, machine, network, state};
use crate::terminal::{Steps, count, print};

/// Which cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Down {
    /// The cluster's folder.
    #[arg(long, default_value = ".skep")]
    pub(crate) dir: PathBuf,
    /// What the cluster's names on this machine start with, when its folder is lost.
    #[arg(long)]
    pub(crate) prefix: Option<String>,
}

/// Removes the cluster.
pub(crate) fn down(options: &Down) -> Result<()> {
    crate::up::preflight::need_root("down", "it ends processes and removes network namespaces and cgroups")?;
    let dir = std::path::absolute(&options.dir)?;
    let recorded = state::load(&dir)?;
    // Without a record, names alone may be those of a cluster in another folder: only an explicit prefix takes them.
    let prefix = match (&recorded, &options.prefix) {
        (None, None) => {
            print(&format!(
                "nothing to take down: no cluster in {} (`--prefix NAME` removes one whose folder is lost)",
                dir.display()
            ));
            return Ok(());
        }
        (_, prefix) => prefix.clone().unwrap_or_default(),
    };
    let plan = recorded.clone().unwrap_or_else(|| nameless(&dir, &prefix));
    let nodes = nodes_to_remove(&plan, recorded.is_some());
    let router_is_there = network::names(&plan.router()).contains(&plan.router());
    if recorded.is_none() && nodes.is_empty() && !router_is_there {
        print(&format!(
            "nothing to take down: no cluster in {} and none named {}-*",
            dir.display(),
            plan.prefix
        ));
        return Ok(());
    }
    let mut steps = Steps::new();
    steps.begin(format!("switching off {}", count(nodes.len(), "node")));
    for node in &nodes {
        machine::power_off(&plan, *node).with_context(|| format!("cannot remove {}", node.name()))?;
    }
    network::remove(&plan.router())?;
    network::remove_empty_folder()?;
    steps.done(format!("{} and the network are gone", count(nodes.len(), "node")));
    if recorded.is_some() {
        steps.begin("removing their disks");
        remove_folder(&plan)?;
        steps.done(format!("{} is gone", dir.display()));
    }
    Ok(())
}

fn nameless(dir: &Path, prefix: &str) -> Plan {
    let (families, store) = (Families::default(), Store::Embedded);
    Plan { prefix: prefix.to_owned(), nodes: 0, store, api_port: 0, families, dir: dir.to_owned() }
}

fn nodes_to_remove(plan: &Plan, recorded: bool) -> BTreeSet<NodeNumber> {
    let prefix = format!("{}-", plan.prefix);
    let names = network::names(&prefix).into_iter().chain(cgroup::names(&prefix));
    let mut nodes: BTreeSet<NodeNumber> =
        names.filter_map(|name| NodeNumber::parse(name.strip_prefix(&prefix)?)).collect();
    if recorded {
        nodes.extend(plan.numbers());
    }
    nodes
}

/// Only what `up` put there: a folder with something else in it stays, without the cluster.
fn remove_folder(plan: &Plan) -> Result<()> {
    for name in ["nodes", "bin"] {
        let path = plan.dir.join(name);
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    for name in ["kubeconfig", "kubeconfig.new", "cluster.new", "cluster.json"] {
        let path = plan.dir.join(name);
        if path.exists() {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    if fs::read_dir(&plan.dir)?.next().is_none() {
        fs::remove_dir(&plan.dir)?;
    }
    Ok(())
}
