//! Reads what a machine says, compares what its kernel can do with what is expected of it, and tells people.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use super::facts::{self, Facts, MARK};
use super::kernels::Kernel;
use crate::say;
use crate::test::tally::Tally;

/// One kernel's results.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// The kernel's name.
    pub(crate) kernel: String,
    /// Version of its package.
    pub(crate) package: String,
    /// From fetching to the end.
    pub(crate) seconds: f32,
    /// Whether the machine came to the end of its plan.
    pub(crate) done: bool,
    suites: Vec<Suite>,
    facts: Facts,
    /// What the kernel is known not to have.
    lacks: Vec<String>,
    /// Tests that the kernel cannot run, and why.
    cannot_run: std::collections::BTreeMap<String, String>,
    /// What is not as expected, the tests aside.
    troubles: Vec<String>,
    /// All that the machine said.
    #[serde(skip)]
    log: String,
    /// Inside libtest's list of failures at the end of a suite.
    #[serde(skip)]
    listing: bool,
    #[serde(skip)]
    expected: std::collections::BTreeMap<String, Value>,
}

/// One test binary's results.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Suite {
    name: String,
    passed: u32,
    failed: u32,
    ignored: u32,
    seconds: f32,
    failures: Vec<String>,
    ignored_tests: Vec<String>,
}

impl Report {
    pub(crate) fn new(kernel: &Kernel) -> Self {
        Self {
            kernel: kernel.name.clone(),
            lacks: kernel.lacks(),
            expected: kernel.features.clone(),
            cannot_run: kernel.cannot_run.clone(),
            ..Self::default()
        }
    }

    /// Remembers something that counts as a failure.
    pub(crate) fn trouble(&mut self, what: String) {
        say::line(&format!("[{}] {what}", self.kernel));
        self.troubles.push(what);
    }

    /// Takes in a line of the machine.
    pub(crate) fn line(&mut self, line: &str) {
        self.log += line;
        self.log.push('\n');
        match line.strip_prefix(MARK) {
            Some(words) => self.mark(line, words),
            None => self.test_output(line),
        }
    }

    fn mark(&mut self, line: &str, words: &str) {
        if let Some(facts) = facts::parse(line) {
            self.facts = facts;
            return;
        }
        let (verb, rest) = words.split_once(' ').unwrap_or((words, ""));
        match verb {
            "booted" => say::line(&format!("[{}] booted", self.kernel)),
            "suite" => self.suites.push(Suite { name: rest.to_owned(), ..Suite::default() }),
            "end" => self.end(rest),
            "done" => self.done = true,
            // Part of a kernel may be built in under another name; the tests notice when it is not there.
            "module" => say::line(&format!("[{}] module not loaded: {rest}", self.kernel)),
            _ => self.trouble(words.to_owned()),
        }
    }

    /// `NAME SECONDS code N`, or how else it ended.
    fn end(&mut self, rest: &str) {
        let mut words = rest.splitn(3, ' ');
        let (name, seconds) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let outcome = words.next().unwrap_or_default();
        let Some(suite) = self.suites.last_mut() else { return };
        suite.seconds = seconds.parse().unwrap_or_default();
        let line = format!(
            "[{}] {name}: {} passed, {} failed, {} ignored ({seconds} s)",
            self.kernel, suite.passed, suite.failed, suite.ignored
        );
        let explained = outcome == "code 0" || suite.failed > 0;
        if name == "probe" {
            if outcome != "code 0" {
                self.trouble(format!("the data path does not open: {outcome}"));
            }
            return;
        }
        say::line(&line);
        if !explained {
            self.trouble(format!("{name} ended with {outcome}"));
        }
    }

    fn test_output(&mut self, line: &str) {
        let Some(suite) = self.suites.last_mut() else {
            return say::line(&format!("[{}] {line}", self.kernel));
        };
        let tally = Tally::of_line(line);
        (suite.passed, suite.failed, suite.ignored) =
            (suite.passed + tally.passed, suite.failed + tally.failed, suite.ignored + tally.skipped);
        if let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            match result.split(',').next() {
                Some("ok") => return,
                Some("ignored") => suite.ignored_tests.push(name.to_owned()),
                _ => {}
            }
        }
        // A test's own words may tear its result off its name, so failures are taken from the list at the end.
        match line.strip_prefix("    ") {
            Some(name) if self.listing && !name.contains(' ') => suite.failures.push(name.to_owned()),
            _ => self.listing = line == "failures:",
        }
        if !line.is_empty() && !line.starts_with("running ") && tally == Tally::default() {
            say::line(&format!("[{}] {line}", self.kernel));
        }
    }

    /// Counts what the kernel cannot run as skipped; what it could run after all is a failure.
    pub(crate) fn excuse(&mut self) {
        for (test, reason) in self.cannot_run.clone() {
            let Some((suite, name)) = test.split_once("::") else { continue };
            let Some(suite) = self.suites.iter_mut().find(|one| one.name == suite) else { continue };
            match suite.failures.iter().position(|failure| failure == name) {
                Some(at) => {
                    suite.failures.remove(at);
                    suite.ignored_tests.push(name.to_owned());
                    (suite.failed, suite.ignored) = (suite.failed.saturating_sub(1), suite.ignored + 1);
                    say::line(&format!("[{}] {test} cannot run: {reason}", self.kernel));
                }
                None if suite.passed > 0 => {
                    self.trouble(format!("{test} passes: take it out of cannot_run in tests/kernels.toml"));
                }
                None => {}
            }
        }
    }

    /// Compares what the kernel can do with what is expected of it; called at the end.
    pub(crate) fn compare(&mut self) {
        let facts = self.facts.clone();
        for (name, expected) in self.expected.clone() {
            let found = facts.features.get(&name).unwrap_or(&Value::Null);
            if *found != expected {
                self.trouble(format!("{name} is {found}, and tests/kernels.toml expects {expected}"));
            }
        }
        let unknown: Vec<&String> =
            facts.features.keys().filter(|name| !self.expected.contains_key(*name)).collect();
        if !unknown.is_empty() {
            self.trouble(format!("tests/kernels.toml says nothing of {unknown:?}: {:?}", facts.features));
        }
    }

    /// What the kernel adds to the count; that it can do what is expected is a test too.
    fn tally(&self) -> Tally {
        let sum = |count: fn(&Suite) -> u32| self.suites.iter().map(count).sum::<u32>();
        Tally {
            passed: sum(|suite| suite.passed) + u32::from(self.troubles.is_empty()),
            failed: sum(|suite| suite.failed) + self.troubles.len() as u32,
            skipped: sum(|suite| suite.ignored),
        }
    }

    /// One line for people.
    pub(crate) fn summary(&self) -> String {
        let lacks = if self.lacks.is_empty() { "nothing".to_owned() } else { self.lacks.join(", ") };
        let (name, release) = (&self.kernel, &self.facts.release);
        format!("{name} ({release}): {}; lacks {lacks} ({:.0} s)", self.tally(), self.seconds)
    }

    /// Keeps it for other readers.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(self)?;
        fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Keeps all that the machine said.
    pub(crate) fn save_log(&self, path: &Path) -> Result<()> {
        fs::write(path, &self.log).with_context(|| format!("cannot write {}", path.display()))
    }

    fn ignored(&self) -> BTreeSet<&String> {
        self.suites.iter().flat_map(|suite| &suite.ignored_tests).collect()
    }

    fn failures(&self) -> impl Iterator<Item = String> + '_ {
        let tests = self.suites.iter().flat_map(move |suite| {
            suite.failures.iter().map(move |test| format!("[{}] {}::{test}", self.kernel, suite.name))
        });
        tests.chain(self.troubles.iter().map(|trouble| format!("[{}] {trouble}", self.kernel)))
    }
}

/// Tells everything and counts.
pub(crate) fn conclude(kernels: &[Kernel], reports: &[Report], host: &Path) -> Tally {
    let mut columns: Vec<(String, Facts)> =
        reports.iter().map(|report| (report.kernel.clone(), report.facts.clone())).collect();
    columns.extend(facts::load(host).map(|facts| ("this machine".to_owned(), facts)));
    say::line(
        "\ninstructions that the verifier looked at, and its milliseconds (emulated, but for this machine's)",
    );
    say::line(&table(&columns));
    let mut tally = reports.iter().fold(Tally::default(), |sum, report| sum + report.tally());
    for report in reports {
        say::line(&report.summary());
        report.failures().for_each(|failure| say::line(&format!("FAILED {failure}")));
    }
    if kernels.len() > 1 {
        for test in skipped_everywhere(reports) {
            say::line(&format!("FAILED {test} runs on no kernel"));
            tally.failed += 1;
        }
    }
    tally
}

fn skipped_everywhere(reports: &[Report]) -> Vec<String> {
    let Some((first, others)) = reports.split_first() else { return Vec::new() };
    let everywhere = |test: &&&String| others.iter().all(|report| report.ignored().contains(**test));
    first.ignored().iter().filter(everywhere).map(|test| (*test).clone()).collect()
}

fn table(columns: &[(String, Facts)]) -> String {
    let programs: BTreeSet<&str> =
        columns.iter().flat_map(|(_, facts)| &facts.programs).map(|program| program.name.as_str()).collect();
    let mut lines = vec![
        columns.iter().fold(format!("{:<18}", "program"), |line, (name, _)| line + &format!("{name:>18}")),
    ];
    for name in programs {
        let mut line = format!("{name:<18}");
        for (_, facts) in columns {
            let cell = facts.programs.iter().find(|program| program.name == name).map_or_else(
                || "-".to_owned(),
                |program| {
                    format!("{} {:>6.1}", program.instructions, program.verifier_micros as f64 / 1000.0)
                },
            );
            line += &format!("{cell:>18}");
        }
        lines.push(line);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let kernel: Kernel = toml::from_str(
            "name = \"old\"\nsuite = \"s\"\npackage = \"p\"\nfeatures = { attach = \"clsact\", bpf_loop = false }",
        )
        .unwrap();
        Report::new(&kernel)
    }

    #[test]
    fn counts_tests_and_names_failures() {
        let mut report = report();
        for line in [
            "@skep suite packets",
            "test a ... ok",
            "test b ... FAILED",
            "test c ... ignored, no TCX",
            "failures:",
            "    b",
            "",
            "test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out",
            "@skep end packets 3.5 code 101",
            "@skep done",
        ] {
            report.line(line);
        }
        assert!(report.done && report.troubles.is_empty());
        assert_eq!(report.failures().collect::<Vec<_>>(), ["[old] packets::b"]);
        assert_eq!(report.tally(), Tally { passed: 2, failed: 1, skipped: 1 });
        assert_eq!(skipped_everywhere(&[report]), ["c"]);
    }

    #[test]
    fn what_a_kernel_cannot_run_is_skipped_and_must_fail() {
        let mut report = report();
        let reasons = [("packets::b", "no such field"), ("packets::a", "none")];
        report.cannot_run = reasons.map(|(test, reason)| (test.to_owned(), reason.to_owned())).into();
        for line in [
            "@skep suite packets",
            "failures:",
            "    b",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            report.line(line);
        }
        report.excuse();
        assert_eq!(report.tally(), Tally { passed: 1, failed: 1, skipped: 1 });
        assert!(report.troubles[0].contains("packets::a passes"), "{:?}", report.troubles);
    }

    #[test]
    fn a_suite_that_dies_is_a_failure() {
        let mut report = report();
        for line in ["@skep suite packets", "@skep end packets 3.5 signal SIGSEGV"] {
            report.line(line);
        }
        assert_eq!(report.tally().failed, 1);
    }

    #[test]
    fn a_feature_that_is_not_as_expected_is_a_failure() {
        let mut report = report();
        report.line(
            "@skep facts {\"release\":\"5.10\",\"features\":{\"attach\":\"clsact\",\"bpf_loop\":true,\"new\":true},\"programs\":[]}",
        );
        report.compare();
        assert_eq!(report.troubles.len(), 2, "{:?}", report.troubles);
        assert!(report.troubles[0].contains("bpf_loop"));
        assert_eq!(report.lacks, ["tcx", "bpf_loop"]);
    }
}
