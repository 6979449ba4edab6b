//! What a benchmark says: each measurement beside its peer in the same run, as a table and as a file.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) metric: String,
    /// Our value.
    pub(crate) value: f64,
    /// Its unit; also that of the peer's.
    pub(crate) unit: String,
    /// The peer or limit measured in the same run.
    pub(crate) against: String,
    /// Its value.
    pub(crate) against_value: f64,
    /// Ours divided by the peer's.
    pub(crate) ratio: f64,
    /// What the ratio should be.
    pub(crate) goal: Goal,
    /// Whether it is.
    pub(crate) held: bool,
}

/// A bound for a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// Larger is better.
    AtLeast(f64),
    /// Smaller is better.
    #[allow(dead_code, reason = "for costs; the first benchmarks measure rates")]
    AtMost(f64),
    /// Only reported.
    None,
}

impl Goal {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bound) => ratio >= bound,
            Self::AtMost(bound) => ratio <= bound,
            Self::None => true,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!(">= {bound}"),
            Self::AtMost(bound) => format!("<= {bound}"),
            Self::None => "-".to_owned(),
        }
    }
}

/// A value with the name of who reached it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer<'a> {
    /// Who.
    pub(crate) name: &'a str,
    /// How much.
    pub(crate) value: f64,
}

/// All measurements of one benchmark.
#[derive(Debug)]
pub(crate) struct Report {
    name: &'static str,
    rows: Vec<Row>,
}

impl Report {
    /// An empty report of the benchmark `name`.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, rows: Vec::new() }
    }

    /// Adds a measurement.
    pub(crate) fn add(
        &mut self,
        metric: impl Into<String>,
        value: f64,
        unit: &str,
        peer: Peer<'_>,
        goal: Goal,
    ) {
        let ratio = if peer.value == 0.0 { 0.0 } else { value / peer.value };
        self.rows.push(Row {
            metric: metric.into(),
            value,
            unit: unit.to_owned(),
            against: peer.name.to_owned(),
            against_value: peer.value,
            ratio,
            goal,
            held: goal.holds(ratio),
        });
    }

    /// Prints the table and writes `target/bench/NAME.json`.
    pub(crate) fn finish(self) -> Result<()> {
        print(&self.table());
        let path = directory()?.join(format!("{}.json", self.name));
        let json = serde_json::to_string_pretty(&self.rows).context("cannot encode the report")?;
        std::fs::write(&path, json + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        print(&format!("written to {}\n", path.display()));
        Ok(())
    }

    fn table(&self) -> String {
        let header = ["metric", "ours", "peer's", "unit", "peer", "ratio", "goal", ""].map(str::to_owned);
        let line = |row: &Row| {
            let verdict = if row.held { "held" } else { "MISSED" };
            [
                row.metric.clone(),
                number(row.value),
                number(row.against_value),
                row.unit.clone(),
                row.against.clone(),
                format!("{:.2}", row.ratio),
                row.goal.text(),
                verdict.to_owned(),
            ]
        };
        let lines: Vec<_> = std::iter::once(header).chain(self.rows.iter().map(line)).collect();
        let mut table = String::new();
        for cells in &lines {
            for (column, cell) in cells.iter().enumerate() {
                let width = lines.iter().map(|cells| cells[column].len()).max().unwrap_or(0);
                // Writing to a String cannot fail.
                let _ = write!(table, "{cell:<width$}  ");
            }
            table.truncate(table.trim_end().len());
            table.push('\n');
        }
        table
    }
}

/// The directory of reports and of what benchmarks write: under the workspace's target, on the same disk.
pub(crate) fn directory() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let directory = target.join("bench");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    Ok(directory)
}

#[allow(clippy::print_stdout, reason = "the table is what a benchmark is run for")]
fn print(text: &str) {
    print!("{text}");
}

fn number(value: f64) -> String {
    if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_ratio_and_verdict() {
        let mut report = Report::new("store");
        let peer = Peer { name: "etcd", value: 500.0 };
        report.add("writes", 1000.0, "1/s", peer, Goal::AtLeast(2.0));
        report.add("cpu", 400.0, "ns", peer, Goal::AtMost(0.5));
        let table = report.table();
        assert!(table.lines().nth(1).unwrap().contains("2.00") && table.contains("held"));
        assert!(table.lines().nth(2).unwrap().contains("MISSED"));
    }
}
