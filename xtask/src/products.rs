//! The binaries: one set of artifacts, in the dev profile, for `up`, the images and the tests.

use anyhow::Result;

use crate::shell::{command, show};
use crate::{say, tools};

/// Crates whose binaries a cluster is made of.
const PRODUCTS: [&str; 8] = [
    "skep-cli",
    "skep-controlplane",
    "skep-kubelet",
    "skep-agent",
    "skep-cni",
    "skep-proxy",
    "skep-operator",
    "skep-demo",
];

/// Builds the eBPF programs and the binaries.
pub(crate) fn build() -> Result<()> {
    tools::ensure(&tools::BUILD)?;
    crate::ebpf::build()?;
    say::line("   building the binaries (the first time takes minutes) ...");
    let mut build = command("cargo", &["build", "--locked", "--quiet"]);
    for product in PRODUCTS {
        build.args(["--package", product]);
    }
    show(&mut build)
}
