//! `up`, `down`, `status`: the skep program with everything built for it.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::shell::{command, root, show, target};
use crate::signals::deliverable;
use crate::{image, products, tools};

/// Builds everything and brings a cluster up.
pub(crate) fn up(rest: &[String]) -> Result<()> {
    tools::need_root("up", "nodes are made of namespaces, mounts, cgroups and eBPF programs")?;
    tools::ensure(&tools::CLUSTER)?;
    if rest.iter().any(|word| word.contains("etcd")) {
        tools::ensure(&[tools::ETCD])?;
    }
    products::build()?;
    image::build_all()?;
    let mut up = command(target().join("debug/skep"), &["up"]);
    show(up.args(["--images-dir".as_ref(), image::folder().as_os_str()]).args(rest))
}

/// Runs a verb of skep that builds nothing, and hands on its exit code.
pub(crate) fn skep(verb: &str, rest: &[String]) -> Result<ExitCode> {
    let built = target().join("debug/skep");
    let installed = root().join(".skep/bin/skep");
    let Some(program) = [built, installed].into_iter().find(|path| path.exists()) else {
        bail!("skep is not built: `cargo xtask up` does that");
    };
    let status = deliverable(|| command(&program, &[verb]).args(rest).status())
        .with_context(|| format!("cannot run {verb}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
