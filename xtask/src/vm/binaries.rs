//! The test binaries, as cargo builds them for `test programs`, and what the machines run beside them.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::say;
use crate::shell::{command, output};

const INIT: &str = "skep-vm-init";
const PROBE: &str = "skep-vm-probe";

/// What is built.
#[derive(Debug, Default)]
pub(crate) struct Binaries {
    /// Name and place of each suite.
    pub(crate) suites: Vec<(String, PathBuf)>,
    /// Whether that is every suite there is.
    pub(crate) all_suites: bool,
    /// Programs that suites start, by the absolute path that is compiled into them.
    pub(crate) helpers: Vec<PathBuf>,
    /// A machine's first process.
    pub(crate) init: PathBuf,
    /// Says what a kernel can do.
    pub(crate) probe: PathBuf,
}

/// Builds them, and keeps the named suites, or all.
pub(crate) fn build(suites: &[String]) -> Result<Binaries> {
    say::step("test binaries", || {
        let line =
            "test --locked --no-run --quiet --message-format=json --package skep-test-programs --tests";
        let mut binaries = read(&output(&mut command("cargo", &words(line)))?);
        let line = "build --locked --quiet --message-format=json --package skep-test-vm --bins";
        let built = read(&output(&mut command("cargo", &words(line)))?);
        let named = |name: &str| {
            let mut found = built.helpers.iter().filter(|path| path.ends_with(name));
            found.next().cloned().with_context(|| format!("cargo built no {name}"))
        };
        (binaries.init, binaries.probe) = (named(INIT)?, named(PROBE)?);
        binaries.suites.sort();
        if let Some(unknown) =
            suites.iter().find(|name| !binaries.suites.iter().any(|(suite, _)| suite == *name))
        {
            let known: Vec<&str> = binaries.suites.iter().map(|(name, _)| name.as_str()).collect();
            bail!("no suite {unknown:?}; there are {}", known.join(", "));
        }
        binaries.all_suites = suites.is_empty();
        binaries.suites.retain(|(name, _)| suites.is_empty() || suites.contains(name));
        Ok(binaries)
    })
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Reads cargo's messages: integration tests are suites, plain binaries are helpers.
fn read(messages: &str) -> Binaries {
    let mut binaries = Binaries::default();
    for line in messages.lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        let Some(path) = message["executable"].as_str().map(PathBuf::from) else { continue };
        let name = message["target"]["name"].as_str().unwrap_or_default().to_owned();
        let is_a = |kind: &str| {
            message["target"]["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|one| one == kind))
        };
        let for_tests = message["profile"]["test"].as_bool().unwrap_or_default();
        if for_tests && is_a("test") {
            binaries.suites.push((name, path));
        } else if !for_tests && is_a("bin") {
            binaries.helpers.push(path);
        }
    }
    binaries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_suites_from_helpers_and_unit_tests() {
        let messages = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"l"},"profile":{"test":true},"executable":"/t/l-1"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"packets"},"profile":{"test":true},"executable":"/t/packets-1"}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"peer"},"profile":{"test":false},"executable":"/t/peer"}
{"reason":"build-finished","success":true}"#;
        let binaries = read(messages);
        assert_eq!(binaries.suites, [("packets".to_owned(), PathBuf::from("/t/packets-1"))]);
        assert_eq!(binaries.helpers, [PathBuf::from("/t/peer")]);
    }
}
