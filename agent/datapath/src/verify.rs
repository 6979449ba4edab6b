//! What this kernel's verifier makes of each program: for tests on other kernels, and for whoever changes a program.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use aya::{EbpfLoader, VerifierLogLevel};
use skep_abi::programs;

use crate::{error::DatapathError, load::load_program, objects};

/// What the verifier says of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramFacts {
    /// Object.
    pub object: &'static str,
    /// Name of the program.
    pub program: String,
    /// Bytes of code as the kernel runs it before it is compiled.
    pub translated: u32,
    /// Bytes of machine code.
    pub jited: u32,
    /// Instructions that the verifier looked at; zero before kernel 5.16, which does not say.
    pub verified: u32,
    /// How long loading took.
    pub duration: Duration,
    /// Why it was refused.
    pub refused: Option<String>,
}

/// Loads every program of the given objects (all of them for an empty list), with maps below `pins`, a folder on a bpffs.
///
/// # Errors
/// When an object is missing or its maps cannot be made; a refused program is in the result.
pub fn verify(
    object_dir: Option<&Path>,
    pins: &Path,
    wanted: &[&str],
) -> Result<Vec<ProgramFacts>, DatapathError> {
    let mut facts = Vec::new();
    for object in programs::OBJECTS {
        if !wanted.is_empty() && !wanted.contains(object) {
            continue;
        }
        let bytes = objects::object(object, object_dir)?;
        let mut ebpf = EbpfLoader::new()
            .default_map_pin_directory(pins)
            .verifier_log_level(VerifierLogLevel::STATS)
            .load(&bytes)
            .map_err(|source| DatapathError::Object { name: (*object).into(), source: Box::new(source) })?;
        for (name, program) in ebpf.programs_mut() {
            let start = Instant::now();
            let result = load_program(program);
            let duration = start.elapsed();
            let info = program.info().ok();
            facts.push(ProgramFacts {
                object,
                program: name.to_owned(),
                translated: info.as_ref().and_then(|info| info.size_translated()).unwrap_or(0),
                jited: info.as_ref().map_or(0, |info| info.size_jitted()),
                verified: info.as_ref().and_then(|info| info.verified_instruction_count()).unwrap_or(0),
                duration,
                refused: result.err().map(|error| format!("{error:?}")),
            });
        }
    }
    Ok(facts)
}
