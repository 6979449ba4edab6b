//! `skep node off|on`: the power switch of a lab node. Its disk survives, as a machine's does.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::lab::plan::{NodeNumber, Plan};
use crate::lab::{machine, state};
use crate::terminal::print;
use crate::up::preflight;

/// The switch.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Power {
    /// Cuts a node's power: every process and its network are gone at once, the disk stays.
    Off(Which),
    /// Switches a node on again, from the same disk.
    On(Which),
}

/// Which node.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// The node's name, such as node-2.
    pub(crate) name: String,
    /// The cluster's folder.
    #[arg(long, default_value = ".skep")]
    pub(crate) dir: PathBuf,
}

/// Turns the switch.
pub(crate) fn switch(power: &Power) -> Result<()> {
    preflight::need_root("node", "it ends and starts the node's processes in namespaces of their own")?;
    match power {
        Power::Off(which) => {
            let (plan, node) = which.find()?;
            if machine::init_of(&plan, node).is_none() {
                print(&format!("{} is off already", which.name));
                return Ok(());
            }
            machine::power_off(&plan, node)?;
            print(&format!(
                "{} is off; `skep node on {}` boots it from the same disk",
                which.name, which.name
            ));
        }
        Power::On(which) => {
            let (plan, node) = which.find()?;
            let was_off = machine::power_on(&plan, node)?;
            print(&format!("{} is on{}", which.name, if was_off { "" } else { " already" }));
        }
    }
    Ok(())
}

impl Which {
    fn find(&self) -> Result<(Plan, NodeNumber)> {
        let dir = std::path::absolute(&self.dir)?;
        let plan = state::load(&dir)?.with_context(|| {
            format!("no cluster in {}: `skep up` makes one, --dir names another", dir.display())
        })?;
        let node = NodeNumber::parse(&self.name).filter(|node| node.0 <= plan.nodes);
        let Some(node) = node else {
            let names: Vec<String> = plan.numbers().map(NodeNumber::name).collect();
            bail!("no node {:?} here; there are {}", self.name, names.join(", "));
        };
        Ok((plan, node))
    }
}
