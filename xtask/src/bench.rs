//! `bench NAME`: the benchmarks, built with optimization.

use anyhow::{Result, bail};

use crate::shell::{command, show};
use crate::{say, tools};

const NAMES: [&str; 6] = ["net", "programs", "services", "store", "watch", "footprint"];

/// Runs a benchmark.
pub(crate) fn bench(name: &str, rest: &[String]) -> Result<()> {
    if !NAMES.contains(&name) {
        bail!("no benchmark {name:?}; there are {}", NAMES.join(", "));
    }
    tools::ensure(&tools::BUILD)?;
    if ["net", "programs", "services", "footprint"].contains(&name) {
        tools::need_root(&format!("bench {name}"), "it makes network namespaces and loads eBPF programs")?;
        tools::ensure(&tools::CLUSTER)?;
    }
    if name == "services" {
        tools::ensure(&tools::RULES)?;
    }
    if name == "store" {
        tools::ensure(&[tools::ETCD])?;
    }
    if name != "store" && name != "watch" {
        crate::ebpf::build()?;
    }
    say::line("   building the benchmarks with optimization (the first time takes minutes) ...");
    let mut run =
        command("cargo", &["run", "--locked", "--quiet", "--release", "--package", "skep-bench", "--", name]);
    show(run.args(rest))
}
