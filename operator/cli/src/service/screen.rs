//! Services for people. Pure.

use std::collections::BTreeSet;

use super::view::{Found, View};
use crate::bpf::rows::Row;
use crate::terminal::{count, table};

/// All Services.
pub(crate) fn list(view: &View) -> String {
    let mut parts = Vec::new();
    if view.services.is_empty() && !view.nodes.is_empty() {
        parts.push("no Service is in force".to_owned());
    } else if !view.services.is_empty() {
        let heads = [
            "SERVICE",
            "TYPE",
            "FAMILIES",
            "FRONTENDS",
            "BACKENDS",
            "TRAFFIC",
            "AFFINITY",
            "NODES",
            "PROBLEMS",
        ];
        let rows = view.services.iter().map(|(name, found)| row(name, found, view.nodes.len()));
        parts.push(table(&heads, rows.collect()));
    }
    if !view.silent.is_empty() {
        parts.push(silence(view));
    }
    parts.join("\n\n")
}

fn row(name: &str, found: &Found, nodes: usize) -> Vec<String> {
    let summary = &found.summary;
    let problems: Vec<&str> = found.problems.keys().map(String::as_str).collect();
    vec![
        name.to_owned(),
        summary.kind.clone(),
        summary.families.join(" "),
        summary.frontends.to_string(),
        summary.backends.to_string(),
        traffic(found),
        affinity(summary.affinity_seconds),
        format!("{} of {nodes}", found.nodes.len()),
        problems.join("\n"),
    ]
}

/// The policies when one of them is not the default.
fn traffic(found: &Found) -> String {
    let local = |name: &str, policy: &str| (policy == "Local").then(|| format!("{name} local"));
    let summary = &found.summary;
    let words: Vec<String> =
        [local("inside", &summary.internal_policy), local("outside", &summary.external_policy)]
            .into_iter()
            .flatten()
            .collect();
    if words.is_empty() { "cluster".into() } else { words.join(", ") }
}

fn affinity(seconds: u32) -> String {
    if seconds == 0 { "none".into() } else { format!("{seconds} s") }
}

/// The nodes that gave no answer.
pub(crate) fn silence(view: &View) -> String {
    let line = |(node, reason): (&String, &String)| format!("{node}: no answer: {reason}");
    view.silent.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// One Service.
pub(crate) fn get(name: &str, found: &Found, nodes: usize) -> String {
    let summary = &found.summary;
    let line = |head: &str, text: String| format!("{head:<13} {text}");
    let mut lines = vec![
        line("service", name.to_owned()),
        line("type", format!("{}, {}", summary.kind, summary.families.join(" and "))),
        line("traffic", traffic(found)),
        line("affinity", affinity(summary.affinity_seconds)),
        line("nodes", format!("in force on {} of {}", found.nodes.len(), count(nodes, "node"))),
    ];
    if let Some(port) = summary.health_check_node_port {
        lines.push(line("health check", format!("http on port {port} of each node")));
    }
    for (problem, on) in &found.problems {
        lines.push(line("problem", format!("{problem} (on {})", names(on, nodes))));
    }
    lines.push(String::new());
    lines.push(frontends(found, nodes));
    lines.join("\n")
}

fn frontends(found: &Found, nodes: usize) -> String {
    if found.frontends.is_empty() {
        return "no frontend: nothing of it can be reached by an address".into();
    }
    let heads = ["FRONTEND", "SERVES", "KIND", "PORT", "OPTIONS", "BACKENDS", "SAME ON"];
    let row = |(row, on): &(crate::bpf::rows::Lb, BTreeSet<String>)| {
        let cells = row.cells();
        let cell = |at: usize| cells.get(at).cloned().unwrap_or_default();
        vec![cell(0), cell(1), cell(2), cell(4), cell(6), cell(7), names(on, nodes)]
    };
    table(&heads, found.frontends.iter().map(row).collect())
}

fn names(on: &BTreeSet<String>, nodes: usize) -> String {
    if on.len() == nodes && nodes > 1 {
        return format!("all {nodes} nodes");
    }
    on.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::view::{NodeAnswer, Summary};
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn view() -> View {
        let told = || {
            let summary: Summary = serde_json::from_value(json!({"service": "default/web", "type": "NodePort", "families": ["IPv4"],
                "frontends": 2, "backends": 3, "localBackends": 1, "internalPolicy": "Cluster", "externalPolicy": "Local",
                "affinitySeconds": 30, "healthCheckNodePort": 31000, "problems": ["externalIP 192.0.2.1 is ignored"]})).unwrap();
            let row = serde_json::from_value(json!({"frontend": "10.96.3.4:80/TCP", "scope": "inside", "kind": "ClusterIP",
                "service": "default/web", "port": "http", "set": 3, "flags": [], "backends": [{"address": "10.244.0.5:80", "node": "node-1"}]})).unwrap();
            NodeAnswer::Told { services: vec![summary], rows: vec![row] }
        };
        View::of(&BTreeMap::from([
            ("node-1".to_owned(), told()),
            ("node-2".to_owned(), told()),
            ("node-3".to_owned(), NodeAnswer::Silent("no agent runs on node-3".into())),
        ]))
    }

    #[test]
    fn the_list_says_how_many_nodes_carry_a_service_out() {
        let text = list(&view());
        assert!(text.lines().next().unwrap().starts_with("SERVICE       TYPE"), "{text}");
        for words in
            ["default/web", "outside local", "30 s", "2 of 2", "192.0.2.1 is ignored", "node-3: no answer"]
        {
            assert!(text.contains(words), "no {words:?} in\n{text}");
        }
    }

    #[test]
    fn one_service_shows_each_address_once() {
        let view = view();
        let text = get("default/web", &view.services["default/web"], view.nodes.len());
        assert_eq!(text.matches("10.96.3.4:80/TCP").count(), 1, "{text}");
        for words in ["NodePort, IPv4", "port 31000", "10.244.0.5:80 on node-1", "all 2 nodes"] {
            assert!(text.contains(words), "no {words:?} in\n{text}");
        }
    }

    #[test]
    fn an_empty_cluster_and_a_service_without_address_are_said_so() {
        let empty = View::of(&BTreeMap::from([(
            "n".to_owned(),
            NodeAnswer::Told { services: vec![], rows: vec![] },
        )]));
        assert_eq!(list(&empty), "no Service is in force");
        assert!(get("a/b", &Found::default(), 1).contains("no frontend"));
    }
}
