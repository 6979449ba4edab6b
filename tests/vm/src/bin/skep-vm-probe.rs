//! Opens the data path on this kernel and says what the kernel can do, and what its verifier thought of each program.
//!
//! Prints one line of JSON. Needs root and compiled objects.

use std::io::Write;

use anyhow::{Result, anyhow};
use serde_json::{Value, json};
use skep_datapath::AttachKind;
use skep_test_programs::{Attach, Bench, Cluster};
use skep_test_vm::{MARK, features, verifier};

fn main() -> Result<()> {
    let mut features = features::probe();
    let bench = Bench::new().map_err(|error| anyhow!("{error:#}"))?;
    drop(bench);
    let cluster = Cluster::new(1, Attach::Best).map_err(|error| anyhow!("{error:#}"))?;
    let report = cluster.nodes[0].datapath().attach_report();
    let tcx = report.iter().any(|attached| attached.kind == AttachKind::Tcx);
    features.insert("attach".into(), if tcx { "tcx" } else { "clsact" }.into());
    let programs: Vec<Value> = verifier::seen()
        .into_iter()
        .map(|row| {
            json!({
                "name": row.name,
                "instructions": row.instructions,
                "verifierMicros": row.time.as_micros() as u64,
                "stack": row.stack,
            })
        })
        .collect();
    let facts = json!({"release": nix::sys::utsname::uname()?.release().to_string_lossy(), "features": features, "programs": programs});
    writeln!(std::io::stdout(), "{MARK}facts {facts}")?;
    Ok(())
}
