//! What the probe says of a kernel: its features, and what its verifier thought of each program.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::binaries::Binaries;
use crate::say;
use crate::shell::{command, output};

/// Begins a line of a machine that is meant for the runner.
pub(crate) const MARK: &str = "@skep ";

/// The probe's answer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// The kernel's own name for its version.
    pub(crate) release: String,
    /// What it can do.
    pub(crate) features: Map<String, Value>,
    /// What the verifier said.
    pub(crate) programs: Vec<Program>,
}

/// What the verifier said of a program.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Program {
    /// Its name, 15 characters at most.
    pub(crate) name: String,
    /// Instructions looked at.
    pub(crate) instructions: u64,
    /// Time taken.
    pub(crate) verifier_micros: u64,
    /// Stack of each subprogram.
    pub(crate) stack: String,
}

/// Asks this machine's own kernel: its times are those of real hardware.
pub(crate) fn of_this_machine(binaries: &Binaries) -> Result<Facts> {
    say::step("the programs on this machine's own kernel", || {
        let said = output(&mut command(&binaries.probe, &[] as &[&str]))?;
        said.lines().rev().find_map(parse).context("the probe said nothing")
    })
}

/// Reads the probe's line.
pub(crate) fn parse(line: &str) -> Option<Facts> {
    serde_json::from_str(line.strip_prefix(MARK)?.strip_prefix("facts ")?).ok()
}

/// Keeps them for other readers.
pub(crate) fn save(path: &Path, facts: &Facts) -> Result<()> {
    fs::write(path, serde_json::to_vec_pretty(facts)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// What was kept.
pub(crate) fn load(path: &Path) -> Option<Facts> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
