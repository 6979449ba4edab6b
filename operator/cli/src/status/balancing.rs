//! Service load balancing as each agent reports it: the types, the judgement and the lines on the
//! screen. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::report::{NodeReport, Problem, Report};
use crate::agent::{AgentError, Answers};
use crate::terminal::table;

/// From this share of a connection table on, its fullness is a problem.
const FULL: f64 = 0.9;

/// What `skep-agent show health` says.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Balancing {
    load_balancing: Settings,
    maps: Vec<Map>,
    kube_proxy: KubeProxy,
}

/// How Services are balanced, and how many rows there are.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Settings {
    /// What happens to connections from outside to a backend elsewhere: snat or dsr.
    mode: String,
    /// How backends are chosen for them: maglev or random.
    algorithm: String,
    maglev_table_size: u32,
    families: Vec<String>,
    uplinks: Vec<Uplink>,
    /// Where kube-proxy's health port is served.
    kube_proxy_health: Option<String>,
    frontends: u64,
    backends: u64,
}

/// A device that carries traffic from outside.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
struct Uplink {
    device: String,
    /// Why nothing that comes in by it is balanced.
    problem: Option<String>,
    /// How packets are seen before the stack, or why they are not.
    xdp: Option<String>,
}

/// A map that connections fill.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Map {
    map: String,
    entries: u64,
    capacity: u64,
    evictions: u64,
    top_clients: Vec<Client>,
    top_sets: Vec<Set>,
}

/// A client with entries in it.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
struct Client {
    client: String,
    entries: u64,
}

/// A Service port with entries in it.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
struct Set {
    set: u32,
    service: String,
    entries: u64,
}

/// What is left of kube-proxy on the node.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct KubeProxy {
    holds_port: bool,
    chains: u64,
    has_table: bool,
    has_ipvs: bool,
}

impl KubeProxy {
    fn describe(&self) -> Option<String> {
        let found = [
            self.holds_port.then(|| "its health port is taken".to_owned()),
            (self.chains > 0).then(|| format!("{} chains KUBE-*", self.chains)),
            self.has_table.then(|| "the nft table kube-proxy".to_owned()),
            self.has_ipvs.then(|| "the device kube-ipvs0".to_owned()),
        ];
        let found: Vec<String> = found.into_iter().flatten().collect();
        (!found.is_empty()).then(|| found.join(", "))
    }

    fn hint(&self) -> &'static str {
        if self.holds_port {
            "both serve Services and no connection breaks: delete kube-proxy's DaemonSet when Skep does it well"
        } else {
            "it does not run any more: `skep-agent kube-proxy cleanup` in the agent's pod removes this (--dry-run shows what)"
        }
    }
}

impl Map {
    fn share(&self) -> f64 {
        if self.capacity == 0 { 0.0 } else { self.entries as f64 / self.capacity as f64 }
    }

    fn top(&self) -> String {
        let client = self.top_clients.first().map(|top| (top.entries, format!("client {}", top.client)));
        let set = self.top_sets.first().map(|top| {
            let name = if top.service.is_empty() { format!("set {}", top.set) } else { top.service.clone() };
            (top.entries, name)
        });
        let all: Vec<String> =
            client.into_iter().chain(set).map(|(entries, name)| format!("{name} ({entries})")).collect();
        if all.is_empty() { "none".into() } else { all.join(", ") }
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
    let uplinks = found.load_balancing.uplinks.iter();
    let own = uplinks.filter_map(|uplink| {
        Some(Problem {
            what: format!("{} on {node} balances nothing: {}", uplink.device, uplink.problem.as_ref()?),
            hint: "loadBalancer.devices says which devices outside clients come in by".into(),
        })
    });
    let full = found.maps.iter().filter(|map| map.share() >= FULL).map(|map| Problem {
        what: format!(
            "the table {} of {node} is {:.0} % full ({} of {})",
            map.map,
            map.share() * 100.0,
            map.entries,
            map.capacity
        ),
        hint: format!("top users: {}; skep bpf ct --node {node}; it grows with the node's memory", map.top()),
    });
    own.chain(full).collect()
}

fn notes(node: &str, found: &Balancing) -> Vec<Problem> {
    let mut notes = Vec::new();
    if let Some(what) = found.kube_proxy.describe() {
        notes.push(Problem {
            what: format!("kube-proxy was found on {node}: {what}"),
            hint: found.kube_proxy.hint().into(),
        });
    }
    for map in found.maps.iter().filter(|map| map.evictions > 0) {
        notes.push(Problem {
            what: format!("{node} forgot {} entries of its full table {}", map.evictions, map.map),
            hint: format!("top users now: {}; skep bpf ct --node {node}", map.top()),
        });
    }
    notes
}

/// The lines; nothing while no agent has answered.
pub(crate) fn show(nodes: &BTreeMap<String, NodeReport>) -> String {
    let known: Vec<(&str, &NodeReport, &Balancing)> = nodes
        .iter()
        .filter_map(|(name, node)| Some((name.as_str(), node, node.balancing.as_ref()?)))
        .collect();
    if known.is_empty() {
        return String::new();
    }
    let lines = [
        grouped("services", &known, |_, found| Some(services(&found.load_balancing))),
        grouped("uplinks", &known, uplinks),
        grouped("health port", &known, |_, found| found.load_balancing.kube_proxy_health.clone()),
    ];
    let mut parts: Vec<String> = lines.into_iter().flatten().collect();
    parts.push(String::new());
    parts.push(tables(&known));
    parts.join("\n")
}

/// Nodes that say the same share a line.
fn grouped(
    head: &str,
    known: &[(&str, &NodeReport, &Balancing)],
    say: impl Fn(&NodeReport, &Balancing) -> Option<String>,
) -> Vec<String> {
    let mut lines: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, node, found) in known {
        if let Some(text) = say(node, found) {
            lines.entry(text).or_default().push(name);
        }
    }
    lines
        .iter()
        .map(|(text, nodes)| format!("{head:<14} {text}\n{:14} on {}", "", nodes.join(", ")))
        .collect()
}

fn services(found: &Settings) -> String {
    let algorithm = match found.maglev_table_size {
        0 => found.algorithm.clone(),
        size => format!("{} of {size}", found.algorithm),
    };
    let families = found.families.join(" and ");
    let words: Vec<&str> = [&found.mode, &algorithm, &families]
        .into_iter()
        .map(String::as_str)
        .filter(|word| !word.is_empty())
        .collect();
    format!("{}   {} frontends, {} backends", words.join(", "), found.frontends, found.backends)
}

/// The devices, with the hooks that the agent published for their programs.
fn uplinks(node: &NodeReport, found: &Balancing) -> Option<String> {
    let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let programs = node.datapath.iter().flat_map(|datapath| &datapath.programs);
    for program in programs.filter(|program| program.name.ends_with("uplink")) {
        kinds.entry(&program.attach).or_default().push(&program.name);
    }
    let kinds: Vec<String> =
        kinds.iter().map(|(kind, names)| format!("{kind}: {}", names.join(" "))).collect();
    let uplink = |uplink: &Uplink| {
        let mode = uplink.xdp.as_deref().unwrap_or("off");
        let xdp = format!("xdp {}", mode.strip_prefix("xdp-").unwrap_or(mode));
        let words: Vec<&str> = match &uplink.problem {
            Some(problem) => vec![problem],
            None => kinds.iter().map(String::as_str).chain([xdp.as_str()]).collect(),
        };
        format!("{} ({})", uplink.device, words.join("; "))
    };
    let all: Vec<String> = found.load_balancing.uplinks.iter().map(uplink).collect();
    (!all.is_empty()).then(|| all.join("  "))
}

fn tables(known: &[(&str, &NodeReport, &Balancing)]) -> String {
    let row = |node: &str, map: &Map| {
        vec![
            node.to_owned(),
            map.map.clone(),
            map.entries.to_string(),
            map.capacity.to_string(),
            format!("{:.1} %", map.share() * 100.0),
            map.evictions.to_string(),
            map.top(),
        ]
    };
    let rows = known.iter().flat_map(|(node, _, found)| found.maps.iter().map(|map| row(node, map)));
    table(&["CONNECTIONS", "TABLE", "ENTRIES", "CAPACITY", "FULL", "EVICTED", "TOP USERS"], rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::report::Datapath;
    use serde_json::{Value, json};

    fn told(entries: u64, evictions: u64) -> Value {
        json!({"synced": true, "leaving": false, "checks": [],
            "loadBalancing": {"mode": "dsr", "algorithm": "maglev", "maglevTableSize": 1021, "families": ["IPv4", "IPv6"],
                "uplinks": [{"device": "eth0", "xdp": "xdp-native"}], "kubeProxyHealth": "0.0.0.0:10256", "frontends": 20, "backends": 31},
            "maps": [{"map": "CONNTRACK4", "entries": entries, "capacity": 1000, "inserts": 9, "evictions": evictions,
                "topClients": [{"client": "10.244.1.3", "entries": 7}], "topSets": [{"set": 4, "entries": 5}]}],
            "kubeProxy": {"holdsPort": false, "chains": 0, "hasTable": false, "hasIpvs": false}, "more": 1})
    }

    fn report(answers: Vec<(&str, Result<Value, AgentError>)>) -> Report {
        let mut report = Report::default();
        let programs = json!({"programs": [{"name": "skep_from_uplink", "attach": "tcx"}, {"name": "skep_from_pod", "attach": "tcx"}]});
        let datapath: Datapath = serde_json::from_value(programs).unwrap();
        for (node, _) in &answers {
            let node_report = NodeReport { datapath: Some(datapath.clone()), ..NodeReport::default() };
            report.nodes.insert((*node).to_owned(), node_report);
        }
        let answers = answers.into_iter().map(|(node, answer)| (node.to_owned(), answer)).collect();
        judge(&mut report, answers);
        report
    }

    #[test]
    fn nodes_that_say_the_same_share_their_lines() {
        let report = report(vec![("node-1", Ok(told(10, 0))), ("node-2", Ok(told(20, 0)))]);
        assert!(report.problems.is_empty() && report.notes.is_empty());
        assert_eq!(
            show(&report.nodes),
            "services       dsr, maglev of 1021, IPv4 and IPv6   20 frontends, 31 backends\n               on node-1, node-2\n\
             uplinks        eth0 (tcx: skep_from_uplink; xdp native)\n               on node-1, node-2\n\
             health port    0.0.0.0:10256\n               on node-1, node-2\n\n\
             CONNECTIONS   TABLE        ENTRIES   CAPACITY   FULL    EVICTED   TOP USERS\n\
             node-1        CONNTRACK4   10        1000       1.0 %   0         client 10.244.1.3 (7), set 4 (5)\n\
             node-2        CONNTRACK4   20        1000       2.0 %   0         client 10.244.1.3 (7), set 4 (5)"
        );
    }

    #[test]
    fn a_table_that_is_nearly_full_is_a_problem_and_names_its_top_user() {
        let report = report(vec![("node-1", Ok(told(950, 3)))]);
        assert!(
            report.problems[0].what.contains("95 % full") && report.problems[0].hint.contains("10.244.1.3")
        );
        assert!(report.notes[0].what.contains("forgot 3 entries"));
    }

    #[test]
    fn kube_proxys_traces_are_a_note_and_a_device_without_programs_a_problem() {
        let mut answer = told(1, 0);
        answer["kubeProxy"] = json!({"holdsPort": false, "chains": 0, "hasTable": true, "hasIpvs": false});
        answer["loadBalancing"]["uplinks"][0]["problem"] = json!("no such device");
        let report = report(vec![("node-1", Ok(answer))]);
        assert!(
            report.notes[0].what.contains("nft table kube-proxy") && report.notes[0].hint.contains("cleanup")
        );
        assert!(
            report.problems[0].what.contains("eth0 on node-1")
                && report.problems[0].what.contains("no such device")
        );
    }

    #[test]
    fn an_old_agent_is_a_note_and_an_absent_one_is_said_elsewhere() {
        let old = AgentError::TooOld { node: "node-1".into(), question: "health".into() };
        let report =
            report(vec![("node-1", Err(old)), ("node-2", Err(AgentError::NoAgent("node-2".into())))]);
        assert_eq!(report.notes.len(), 1);
        assert!(report.is_healthy() && show(&report.nodes).is_empty());
    }
}
