//! `ebpf`: placeholder until the program build is settled.

use anyhow::Result;

/// Builds the eBPF programs.
pub(crate) fn build() -> Result<()> {
    Ok(())
}
