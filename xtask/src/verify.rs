//! `verify`, `fix` and `lint`: format, clippy, the directions between crates, and inherited lints.

use anyhow::{Result, bail};

use crate::shell::{command, output, show};
use crate::{say, tools};

mod layers;

const CLIPPY: &str = "clippy --locked --quiet --workspace --exclude skep-ebpf-programs --lib --bins";

/// Checks everything and writes nothing.
pub(crate) fn verify() -> Result<()> {
    say::step("format", || {
        let checked = output(&mut command("cargo", &["fmt", "--all", "--check"]));
        checked.map(drop).map_err(|error| error.context("not formatted: `cargo xtask fix` does it"))
    })?;
    lint()
}

/// Checks lints and layers.
pub(crate) fn lint() -> Result<()> {
    tools::ensure(&tools::BUILD)?;
    say::step("layers and inherited lints", || {
        let metadata =
            output(&mut command("cargo", &["metadata", "--locked", "--no-deps", "--format-version", "1"]))?;
        let crates = layers::parse(&metadata)?;
        let mut complaints = layers::check(&crates);
        complaints.extend(lints_not_inherited(&crates)?);
        if !complaints.is_empty() {
            bail!("{}", complaints.join("\n"));
        }
        Ok(())
    })?;
    say::step("clippy", || {
        let mut clippy = command("cargo", &words(CLIPPY));
        show(clippy.args(["--", "-D", "warnings"]))
    })
}

/// Formats, and applies what clippy can repair by itself.
pub(crate) fn fix() -> Result<()> {
    tools::ensure(&tools::BUILD)?;
    say::step("clippy --fix", || {
        let mut clippy = command("cargo", &words(CLIPPY));
        show(clippy.args(["--fix", "--allow-dirty", "--allow-staged"]))
    })?;
    say::step("format", || show(&mut command("cargo", &["fmt", "--all"])))
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn lints_not_inherited(crates: &[layers::Crate]) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for found in crates {
        let text = std::fs::read_to_string(&found.manifest)?;
        let inherits = text
            .split("[lints]")
            .nth(1)
            .is_some_and(|rest| rest.trim_start().starts_with("workspace = true"));
        if !inherits {
            complaints.push(format!("{}: add `[lints] workspace = true`", found.name));
        }
    }
    Ok(complaints)
}
