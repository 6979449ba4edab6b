//! Running a program of the host to its end, with its own words in the error.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Runs a program and returns its output.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {program}: is it installed?"))?;
    if !output.status.success() {
        let line: Vec<_> = arguments.iter().map(|argument| argument.as_ref().to_string_lossy()).collect();
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}", line.join(" "), words.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program given as one line of words without spaces in them.
pub(crate) fn run_line(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let Some(program) = words.next() else { bail!("an empty command line") };
    run(program, &words.collect::<Vec<_>>())
}
