//! Service load balancing as each agent reports it: the types, the judgement and the lines on the
//! screen. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::report::{NodeReport, Problem, Report};
use crate::agent::{AgentError, Answers};
use crate::terminal::table;

/// From this share of a connection table on, its fullness is a problem.
const FULL: f64 = 0.9;

/// What `skep-agent show status` says.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Balancing {
    /// What happens to connections from outside to a backend elsewhere: snat or dsr.
    mode: String,
    /// How backends are chosen for them: maglev or random.
    algorithm: String,
    maglev_table_size: u32,
    families: Vec<String>,
    devices: Vec<Device>,
    conntrack: Vec<Table>,
    kube_proxy: KubeProxy,
    /// Where kube-proxy's health port is served.
    kube_proxy_health: Option<String>,
    services: u64,
    frontends: u64,
    backends: u64,
    problems: Vec<String>,
}

/// A device that carries traffic from outside.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
struct Device {
    name: String,
    programs: Vec<super::report::Program>,
    xdp: String,
}

/// A connection table.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Table {
    family: String,
    entries: u64,
    capacity: u64,
    evictions: u64,
    top_users: Vec<User>,
}

/// Who holds entries of it.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
struct User {
    user: String,
    kind: String,
    entries: u64,
}

/// Whether rules of kube-proxy are on the node.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
struct KubeProxy {
    found: bool,
    detail: String,
}

impl Table {
    fn share(&self) -> f64 {
        if self.capacity == 0 { 0.0 } else { self.entries as f64 / self.capacity as f64 }
    }

    fn top(&self) -> String {
        let user = |user: &User| format!("{} {} ({})", user.kind, user.user, user.entries);
        self.top_users.iter().max_by_key(|user| user.entries).map_or_else(|| "none".into(), user)
    }
}

/// Adds the answers to the nodes, and what is wrong to the problems. An agent that is away is one
/// already.
pub(crate) fn judge(report: &mut Report, answers: Answers) {
    for (node, answer) in answers {
        match answer.map(serde_json::from_value::<Balancing>) {
            Ok(Ok(found)) => {
                report.problems.extend(problems(&node, &found));
                report.notes.extend(notes(&node, &found));
                if let Some(entry) = report.nodes.get_mut(&node) {
                    entry.balancing = Some(found);
                }
            }
            Ok(Err(error)) => report.notes.push(Problem {
                what: format!("the agent on {node} describes its load balancing in other words: {error}"),
                hint: "are skep and the agent of one version?".into(),
            }),
            Err(AgentError::NoNode(_) | AgentError::NoAgent(_) | AgentError::NotReady { .. }) => {}
            Err(error) => {
                report
                    .notes
                    .push(Problem { what: error.to_string(), hint: "the rest of this screen holds".into() });
            }
        }
    }
}

fn problems(node: &str, found: &Balancing) -> Vec<Problem> {
    let own = found.problems.iter().map(|problem| Problem {
        what: format!("load balancing on {node}: {problem}"),
        hint: format!("skep service list --node {node}; kubectl -n kube-system logs ds/skep-agent"),
    });
    let full = found.conntrack.iter().filter(|table| table.share() >= FULL).map(|table| Problem {
        what: format!(
            "the {} connection table of {node} is {:.0} % full ({} of {})",
            table.family,
            table.share() * 100.0,
            table.entries,
            table.capacity
        ),
        hint: format!(
            "its top user is {}: skep bpf ct --node {node}; the table grows with the node's memory",
            table.top()
        ),
    });
    own.chain(full).collect()
}

fn notes(node: &str, found: &Balancing) -> Vec<Problem> {
    let mut notes = Vec::new();
    if found.kube_proxy.found {
        notes.push(Problem {
            what: format!("kube-proxy's rules are on {node}: {}", found.kube_proxy.detail),
            hint: "new connections are Skep's already; once kube-proxy is gone, remove its rules (README, Services)".into(),
        });
    }
    for table in found.conntrack.iter().filter(|table| table.evictions > 0) {
        notes.push(Problem {
            what: format!(
                "{node} evicted {} connections from its full {} table",
                table.evictions, table.family
            ),
            hint: format!("top user now: {}; skep bpf ct --node {node}", table.top()),
        });
    }
    for device in found.devices.iter().filter(|device| device.xdp.starts_with("refused")) {
        notes.push(Problem {
            what: format!("{} on {node} takes no XDP program: {}", device.name, device.xdp),
            hint: "the other hooks of the device do its work; loadBalancer.xdp=off says no more of it".into(),
        });
    }
    notes
}

/// The lines; nothing while no agent has answered.
pub(crate) fn show(nodes: &BTreeMap<String, NodeReport>) -> String {
    let known: Vec<(&str, &Balancing)> =
        nodes.iter().filter_map(|(name, node)| Some((name.as_str(), node.balancing.as_ref()?))).collect();
    if known.is_empty() {
        return String::new();
    }
    let lines = [
        grouped("services", &known, |found| Some(services(found))),
        grouped("devices", &known, devices),
        grouped("health port", &known, |found| found.kube_proxy_health.clone()),
    ];
    let mut parts: Vec<String> = lines.into_iter().flatten().collect();
    parts.push(String::new());
    parts.push(connections(&known));
    parts.join("\n")
}

/// Nodes that say the same share a line.
fn grouped(
    head: &str,
    known: &[(&str, &Balancing)],
    say: impl Fn(&Balancing) -> Option<String>,
) -> Vec<String> {
    let mut lines: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (node, found) in known {
        if let Some(text) = say(found) {
            lines.entry(text).or_default().push(node);
        }
    }
    lines
        .iter()
        .map(|(text, nodes)| format!("{head:<14} {text}\n{:14} on {}", "", nodes.join(", ")))
        .collect()
}

fn services(found: &Balancing) -> String {
    let algorithm = match found.maglev_table_size {
        size if found.algorithm == "maglev" => format!("maglev of {size}"),
        _ => found.algorithm.clone(),
    };
    format!(
        "{}, {algorithm}, {}   {} services, {} frontends, {} backends",
        found.mode,
        found.families.join(" and "),
        found.services,
        found.frontends,
        found.backends
    )
}

fn devices(found: &Balancing) -> Option<String> {
    let device = |device: &Device| {
        let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for program in &device.programs {
            kinds.entry(&program.attach).or_default().push(&program.name);
        }
        let kinds = kinds.iter().map(|(kind, names)| format!("{kind}: {}", names.join(" ")));
        let xdp = (!device.xdp.is_empty()).then(|| format!("xdp {}", device.xdp));
        format!("{} ({})", device.name, kinds.chain(xdp).collect::<Vec<_>>().join("; "))
    };
    let all: Vec<String> = found.devices.iter().map(device).collect();
    (!all.is_empty()).then(|| all.join("  "))
}

fn connections(known: &[(&str, &Balancing)]) -> String {
    let row = |node: &str, table: &Table| {
        vec![
            node.to_owned(),
            table.family.clone(),
            table.entries.to_string(),
            table.capacity.to_string(),
            format!("{:.1} %", table.share() * 100.0),
            table.evictions.to_string(),
            table.top(),
        ]
    };
    let rows = known.iter().flat_map(|(node, found)| found.conntrack.iter().map(|table| row(node, table)));
    table(&["CONNECTIONS", "FAMILY", "ENTRIES", "CAPACITY", "FULL", "EVICTED", "TOP USER"], rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn told(entries: u64, evictions: u64) -> Value {
        json!({"mode": "dsr", "algorithm": "maglev", "maglevTableSize": 1021, "families": ["IPv4", "IPv6"],
            "devices": [{"name": "eth0", "programs": [{"name": "skep_from_uplink", "attach": "tcx"},
                {"name": "skep_to_uplink", "attach": "tcx"}], "xdp": "native"}],
            "conntrack": [{"family": "IPv4", "entries": entries, "capacity": 1000, "evictions": evictions,
                "topUsers": [{"user": "default/web", "kind": "service", "entries": 5}, {"user": "10.244.1.3", "kind": "client", "entries": 7}]}],
            "kubeProxy": {"found": false, "detail": ""}, "kubeProxyHealth": "0.0.0.0:10256",
            "services": 12, "frontends": 20, "backends": 31, "problems": [], "more": 1})
    }

    fn report(answers: Vec<(&str, Result<Value, AgentError>)>) -> Report {
        let mut report = Report::default();
        for (node, _) in &answers {
            report.nodes.insert((*node).to_owned(), NodeReport::default());
        }
        let answers = answers.into_iter().map(|(node, answer)| (node.to_owned(), answer)).collect();
        judge(&mut report, answers);
        report
    }

    #[test]
    fn nodes_that_say_the_same_share_their_lines() {
        let report = report(vec![("node-1", Ok(told(10, 0))), ("node-2", Ok(told(20, 0)))]);
        assert!(report.problems.is_empty() && report.notes.is_empty());
        let text = show(&report.nodes);
        assert_eq!(
            text,
            "services       dsr, maglev of 1021, IPv4 and IPv6   12 services, 20 frontends, 31 backends\n               on node-1, node-2\n\
             devices        eth0 (tcx: skep_from_uplink skep_to_uplink; xdp native)\n               on node-1, node-2\n\
             health port    0.0.0.0:10256\n               on node-1, node-2\n\n\
             CONNECTIONS   FAMILY   ENTRIES   CAPACITY   FULL    EVICTED   TOP USER\n\
             node-1        IPv4     10        1000       1.0 %   0         client 10.244.1.3 (7)\n\
             node-2        IPv4     20        1000       2.0 %   0         client 10.244.1.3 (7)"
        );
    }

    #[test]
    fn a_table_that_is_nearly_full_is_a_problem_and_names_its_top_user() {
        let report = report(vec![("node-1", Ok(told(950, 3)))]);
        assert!(
            report.problems[0].what.contains("95 % full") && report.problems[0].hint.contains("10.244.1.3")
        );
        assert!(report.notes[0].what.contains("evicted 3 connections"));
    }

    #[test]
    fn kube_proxys_rules_and_a_refused_xdp_are_notes() {
        let mut answer = told(1, 0);
        answer["kubeProxy"] = json!({"found": true, "detail": "nft table ip kube-proxy"});
        answer["devices"][0]["xdp"] = json!("refused: no support");
        let report = report(vec![("node-1", Ok(answer))]);
        assert!(report.is_healthy());
        assert!(report.notes[0].what.contains("nft table ip kube-proxy"));
        assert!(report.notes[1].what.contains("eth0 on node-1"));
    }

    #[test]
    fn an_old_agent_is_a_note_and_an_absent_one_is_said_elsewhere() {
        let old = AgentError::TooOld { node: "node-1".into(), question: "status".into() };
        let report =
            report(vec![("node-1", Err(old)), ("node-2", Err(AgentError::NoAgent("node-2".into())))]);
        assert_eq!(report.notes.len(), 1);
        assert!(report.is_healthy() && show(&report.nodes).is_empty());
    }
}
