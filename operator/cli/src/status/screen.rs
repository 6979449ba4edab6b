//! The report as one screen for people.

use std::collections::BTreeMap;

use super::balancing;
use super::report::{NodeReport, Problem, Report};
use crate::terminal::table;

/// The screen.
pub(crate) fn show(report: &Report) -> String {
    let mut parts = vec![headline(report)];
    if !report.nodes.is_empty() {
        parts.push(nodes(report));
        parts.push(programs(report));
        parts.push(balancing::show(&report.nodes));
    }
    parts.push(notes(report));
    parts.push(problems(report));
    parts.retain(|part| !part.is_empty());
    parts.join("\n\n")
}

fn headline(report: &Report) -> String {
    let version = report.version.as_deref().unwrap_or("does not answer");
    let check =
        |check: &super::report::Check| format!("{} {}", check.name, if check.ok { "ok" } else { "FAILS" });
    let checks: Vec<String> = report.checks.iter().map(check).collect();
    let ready = report.nodes.values().filter(|node| node.ready).count();
    let count =
        |state: fn(&NodeReport) -> &str| report.nodes.values().filter(|node| state(node) == "Ready").count();
    let all = report.nodes.len();
    let mut rows = vec![vec!["control plane".to_owned(), format!("{version}   {}", checks.join(", "))]];
    if all > 0 {
        rows.push(vec!["nodes".into(), format!("{ready} of {all} Ready")]);
        rows.push(vec!["agents".into(), format!("{} of {all} ready", count(|node| &node.agent))]);
        rows.push(vec!["proxies".into(), format!("{} of {all} ready", count(|node| &node.proxy))]);
        rows.push(vec![
            "operator".into(),
            format!("{} of {} ready", report.operator.ready, report.operator.all),
        ]);
    }
    rows.iter().map(|row| format!("{:<14} {}", row[0], row[1])).collect::<Vec<_>>().join("\n")
}

fn nodes(report: &Report) -> String {
    let row = |(name, node): (&String, &NodeReport)| {
        let state = match (node.ready, node.schedulable) {
            (true, true) => "Ready",
            (true, false) => "Ready, cordoned",
            (false, _) => "NotReady",
        };
        let attach = node.datapath.as_ref().map_or("unknown", |datapath| datapath.attach.as_str());
        [name, state, &node.address, &node.pod_cidr, &node.version, &node.agent, &node.proxy, attach]
            .map(str::to_owned)
            .to_vec()
    };
    let heads = ["NODE", "STATUS", "ADDRESS", "PODS", "VERSION", "AGENT", "PROXY", "ATTACH"];
    table(&heads, report.nodes.iter().map(row).collect())
}

/// Nodes with the same programs share a line.
fn programs(report: &Report) -> String {
    let mut lines: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, node) in &report.nodes {
        let Some(datapath) = &node.datapath else { continue };
        let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for program in &datapath.programs {
            kinds.entry(&program.attach).or_default().push(&program.name);
        }
        let kinds: Vec<String> =
            kinds.iter().map(|(kind, names)| format!("{kind}: {}", names.join(" "))).collect();
        lines.entry(kinds.join("   ")).or_default().push(name);
    }
    let lines = lines.iter().map(|(programs, nodes)| {
        format!("programs       {}\n               on {}", programs, nodes.join(", "))
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn problems(report: &Report) -> String {
    if report.is_healthy() {
        return "no problems".into();
    }
    lines("problem", &report.problems)
}

fn notes(report: &Report) -> String {
    lines("note", &report.notes)
}

fn lines(word: &str, all: &[Problem]) -> String {
    let line = |problem: &Problem| format!("{word}: {}\n   try: {}", problem.what, problem.hint);
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}
