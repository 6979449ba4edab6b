//! Opens the data path on this kernel and says what the kernel can do, and what its verifier thought of each program.
//!
//! Prints one line of JSON. Needs root and compiled objects. With the argument `programs` it loads nothing but the programs, each
//! by itself (or those named after it), and says what the verifier thinks of it in a table: for those who write programs. With
//! `SKEP_VERIFIER_LOG=FOLDER` every step of the verifier is kept there.

use std::io::Write;

use anyhow::{Context, Result, anyhow, ensure};
use aya::{EbpfLoader, programs::Program};
use serde_json::{Map, Value, json};
use skep_datapath::{AttachKind, objects};
use skep_test_programs::{Bench, bench::BpfFs, netns::Netns};
use skep_test_vm::{MARK, features, verifier, verifier::Verified};

/// Lines of the verifier's log that tell why a program was refused.
const LAST_WORDS: usize = 60;

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("programs") => programs(),
        _ => facts(),
    }
}

fn facts() -> Result<()> {
    let mut features = features::probe();
    // First what needs no data path: it is worth knowing when none opens.
    tell(&features, &[])?;
    let kind = attach()?;
    // Loaded by itself: a data path does so only when it is asked for.
    load("xdp", &[], &mut std::io::sink())?;
    features.insert("attach".into(), kind.into());
    let programs: Vec<Value> = verifier::seen().iter().map(row).collect();
    tell(&features, &programs)
}

fn tell(features: &Map<String, Value>, programs: &[Value]) -> Result<()> {
    let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    let facts = json!({"release": release, "features": features, "programs": programs});
    Ok(writeln!(std::io::stdout(), "{MARK}facts {facts}")?)
}

/// Opens a data path, and says how classifiers are attached here.
fn attach() -> Result<&'static str> {
    let bench = Bench::new().map_err(|error| anyhow!("{error:#}"))?;
    let netns = Netns::new("probe")?;
    netns.sh("ip link add pod type veth peer name eth0")?;
    let ifindex = netns.ifindex("pod")?;
    netns.within(|| Ok(bench.datapath().attach_pod(ifindex)?))?;
    let report = bench.datapath().attach_report();
    Ok(if report.iter().any(|attached| attached.kind == AttachKind::Tcx) { "tcx" } else { "clsact" })
}

fn row(row: &Verified) -> Value {
    json!({
        "name": row.name,
        "instructions": row.instructions,
        "verifierMicros": u64::try_from(row.time.as_micros()).unwrap_or(u64::MAX),
        "stack": row.stack,
    })
}

/// Loads each program of each object by itself.
fn programs() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(2).collect();
    let mut refused = 0;
    for name in objects::embedded_names() {
        refused += load(name, &wanted, &mut std::io::stdout()).err().map_or(0, |error| {
            let _nobody_to_tell = writeln!(std::io::stdout(), "    {error:#}");
            1
        });
    }
    ensure!(refused == 0, "{refused} objects refused");
    Ok(())
}

/// Loads the wanted programs of an object, or all, and writes what the verifier says.
fn load(name: &str, wanted: &[String], out: &mut impl Write) -> Result<()> {
    let pins = BpfFs::mount()?;
    let folder = std::env::var_os("SKEP_BPF_DIR").map(std::path::PathBuf::from);
    let bytes = objects::object(name, folder.as_deref())?;
    let mut object = EbpfLoader::new()
        .default_map_pin_directory(pins.path())
        .load(&bytes)
        .with_context(|| format!("object {name}"))?;
    let mut refused = Vec::new();
    for (program, kind) in object.programs_mut() {
        if !wanted.is_empty() && !wanted.iter().any(|one| one == program) {
            continue;
        }
        let result = match kind {
            Program::SchedClassifier(one) => one.load(),
            Program::CgroupSockAddr(one) => one.load(),
            Program::Xdp(one) => one.load(),
            _ => continue,
        };
        let Some(seen) = verifier::last() else { continue };
        let millis = seen.time.as_secs_f64() * 1000.0;
        writeln!(
            out,
            "{name:<8} {program:<20} {:>8} {millis:>9.1} ms  stack {}",
            seen.instructions, seen.stack
        )?;
        if let Err(error) = result {
            let words = format!("{error}\n{}", seen.refused.unwrap_or_default());
            let lines: Vec<&str> = words.lines().collect();
            let last = lines.len().saturating_sub(LAST_WORDS);
            refused.push(format!("{program} is refused, its last words:\n{}", lines[last..].join("\n")));
        }
    }
    ensure!(refused.is_empty(), "{}", refused.join("\n"));
    Ok(())
}
