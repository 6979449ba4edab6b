//! Judging what was gathered: the state of each part, and problems with what to try. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::core::DynamicObject;
use serde::{Deserialize, Serialize};

use super::balancing::{self, Balancing};
use super::gather::Facts;
use crate::up::wait::{is_ready, node_is_ready};

/// Where an agent publishes its data path's state, on its NodeEndpoints object.
pub(crate) const DATAPATH_ANNOTATION: &str = "skep.dev/datapath";
/// The parts that run as pods, by their `k8s-app` label; the first two run on every node.
const PARTS: [(&str, &str); 3] =
    [("agent", "skep-agent"), ("proxy", "kube-dns"), ("operator", "skep-operator")];

/// The state of a cluster.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Version the server says it serves.
    pub(crate) version: Option<String>,
    /// The control plane's checks in its order: name, and whether it passes.
    pub(crate) checks: Vec<Check>,
    /// Nodes by name.
    pub(crate) nodes: BTreeMap<String, NodeReport>,
    /// The operator's ready and wanted pods.
    pub(crate) operator: Count,
    /// What is wrong.
    pub(crate) problems: Vec<Problem>,
    /// What is worth knowing, but not wrong.
    pub(crate) notes: Vec<Problem>,
}

/// One check of the control plane.
#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Check {
    /// Its name.
    pub(crate) name: String,
    /// Whether it passes.
    pub(crate) ok: bool,
}

/// Ready out of all.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(crate) struct Count {
    /// Ready ones.
    pub(crate) ready: usize,
    /// All.
    pub(crate) all: usize,
}

/// A node.
#[derive(Debug, Default, Serialize)]
pub(crate) struct NodeReport {
    /// Whether it is Ready.
    pub(crate) ready: bool,
    /// Whether pods may be placed on it.
    pub(crate) schedulable: bool,
    /// Its address.
    pub(crate) address: String,
    /// The kubelet's version.
    pub(crate) version: String,
    /// The pods' range.
    pub(crate) pod_cidr: String,
    /// State of the agent's pod: Ready or why not.
    pub(crate) agent: String,
    /// State of the proxy's pod.
    pub(crate) proxy: String,
    /// What the agent says of its data path.
    pub(crate) datapath: Option<Datapath>,
    /// What it says of Service load balancing.
    pub(crate) balancing: Option<Balancing>,
}

/// What an agent publishes.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Datapath {
    /// The agent's version.
    pub(crate) version: String,
    /// How pod programs are attached, such as tcx or clsact.
    pub(crate) attach: String,
    /// The programs and how each is attached.
    pub(crate) programs: Vec<Program>,
    /// What the agent complains about.
    pub(crate) problems: Vec<String>,
}

/// A loaded program.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Program {
    /// Its name.
    pub(crate) name: String,
    /// How it is attached.
    pub(crate) attach: String,
}

/// Something wrong, and what to try.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    /// What is wrong.
    pub(crate) what: String,
    /// What to try.
    pub(crate) hint: String,
}

impl Report {
    /// Whether nothing is wrong.
    pub(crate) fn is_healthy(&self) -> bool {
        self.problems.is_empty()
    }

    fn problem(&mut self, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem { what: what.into(), hint: hint.into() });
    }
}

/// Turns the facts into a judgement.
pub(crate) fn judge(facts: Facts) -> Report {
    let mut report = Report::default();
    control_plane(&mut report, facts.checks, facts.version);
    match facts.nodes {
        Ok(nodes) => nodes.iter().for_each(|node| judge_node(&mut report, node)),
        Err(reason) => unanswered(&mut report, "nodes", &reason),
    }
    match facts.agents {
        Ok(agents) => agents.iter().for_each(|agent| datapath(&mut report, agent)),
        Err(reason) => unanswered(&mut report, "agents' state", &reason),
    }
    match facts.pods {
        Ok(pods) => judge_pods(&mut report, &pods),
        Err(reason) => unanswered(&mut report, "pods", &reason),
    }
    balancing::judge(&mut report, facts.balancing);
    report
}

fn unanswered(report: &mut Report, what: &str, reason: &str) {
    // Said once by the control plane's own check when nothing answers at all.
    if report.version.is_some() {
        report.problem(
            format!("the {what} cannot be read: {reason}"),
            "does this kubeconfig's user have the right to?",
        );
    }
}

fn control_plane(report: &mut Report, checks: Result<String, String>, version: Result<String, String>) {
    report.version = version.ok();
    match checks {
        Ok(text) => report.checks = parse_checks(&text),
        Err(reason) => {
            let hint = "is the control plane running? On a local cluster: `skep up` repairs, logs are in .skep/nodes/node-1/root/var/log/skep";
            report.problem(format!("the API server does not answer: {reason}"), hint);
        }
    }
    let failing: Vec<String> =
        report.checks.iter().filter(|check| !check.ok).map(|check| check.name.clone()).collect();
    for name in failing {
        report.problem(format!("the control plane's check {name:?} fails"), "see the control plane's log");
    }
}

/// Lines such as `[+]etcd ok` and `[-]etcd failed: reason withheld`.
fn parse_checks(text: &str) -> Vec<Check> {
    let check = |line: &str| {
        let (ok, rest) = match line.strip_prefix("[+]") {
            Some(rest) => (true, rest),
            None => (false, line.strip_prefix("[-]")?),
        };
        Some(Check { name: rest.split_whitespace().next()?.to_owned(), ok })
    };
    text.lines().filter_map(check).collect()
}

fn judge_node(report: &mut Report, node: &Node) {
    let name = node.metadata.name.clone().unwrap_or_default();
    let status = node.status.clone().unwrap_or_default();
    let address = status.addresses.iter().flatten().find(|address| address.type_ == "InternalIP");
    let spec = node.spec.clone().unwrap_or_default();
    let entry = NodeReport {
        ready: node_is_ready(node),
        schedulable: !spec.unschedulable.unwrap_or(false),
        address: address.map(|found| found.address.clone()).unwrap_or_default(),
        version: status.node_info.map(|info| info.kubelet_version).unwrap_or_default(),
        pod_cidr: spec.pod_cidr.unwrap_or_default(),
        agent: "none".into(),
        proxy: "none".into(),
        datapath: None,
        balancing: None,
    };
    if !entry.ready {
        let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
        let reason = ready
            .and_then(|found| found.message.clone())
            .unwrap_or_else(|| "no word from its kubelet".into());
        let hint = format!("kubectl describe node {name}; a local node that is off: `skep node on {name}`");
        report.problem(format!("node {name} is not Ready: {reason}"), hint);
    }
    if entry.pod_cidr.is_empty() {
        report.problem(
            format!("node {name} has no pod range"),
            "is the controllers role running, is the cluster range full?",
        );
    }
    report.nodes.insert(name, entry);
}

fn datapath(report: &mut Report, agent: &DynamicObject) {
    let name = agent.metadata.name.clone().unwrap_or_default();
    let text = agent.metadata.annotations.as_ref().and_then(|all| all.get(DATAPATH_ANNOTATION));
    let Some(found) = text.and_then(|text| serde_json::from_str::<Datapath>(text).ok()) else { return };
    for problem in &found.problems {
        report.problem(
            format!("agent on {name}: {problem}"),
            format!("kubectl -n kube-system logs ds/skep-agent (the one on {name})"),
        );
    }
    if let Some(node) = report.nodes.get_mut(&name) {
        node.datapath = Some(found);
    }
}

fn judge_pods(report: &mut Report, pods: &[Pod]) {
    for (part, label) in PARTS {
        for pod in pods.iter().filter(|pod| has_label(pod, label)) {
            judge_pod(report, part, pod);
        }
    }
    let names: Vec<String> = report.nodes.keys().cloned().collect();
    for name in names {
        let Some(node) = report.nodes.get(&name) else { continue };
        let missing: Vec<&str> = [("agent", &node.agent), ("proxy", &node.proxy)]
            .iter()
            .filter(|(_, state)| *state == "none")
            .map(|(part, _)| *part)
            .collect();
        for part in missing {
            report.problem(
                format!("no {part} pod on {name}"),
                format!("kubectl -n kube-system describe ds skep-{part}"),
            );
        }
    }
    if report.operator.all == 0 && report.version.is_some() {
        report.problem("no operator pod", "kubectl -n kube-system describe deploy skep-operator");
    }
}

fn has_label(pod: &Pod, value: &str) -> bool {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get("k8s-app")).is_some_and(|found| found == value)
}

fn judge_pod(report: &mut Report, part: &str, pod: &Pod) {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let ready = is_ready(pod);
    let state = if ready { "Ready".to_owned() } else { why_not_ready(pod) };
    if part == "operator" {
        report.operator.all += 1;
        report.operator.ready += usize::from(ready);
    } else if let Some(node) = report.nodes.get_mut(&node) {
        let slot = if part == "agent" { &mut node.agent } else { &mut node.proxy };
        if slot != "Ready" {
            slot.clone_from(&state);
        }
    }
    if !ready {
        let hint = format!("kubectl -n kube-system describe pod {name}; kubectl -n kube-system logs {name}");
        report.problem(format!("{part} pod {name} is not ready: {state}"), hint);
    }
}

fn why_not_ready(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let waiting = status
        .container_statuses
        .iter()
        .flatten()
        .find_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone());
    waiting.or(status.reason).or(status.phase).unwrap_or_else(|| "unknown".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn node(name: &str, ready: &str) -> Node {
        from(json!({"metadata": {"name": name}, "spec": {"podCIDR": "10.244.0.0/24"},
            "status": {"conditions": [{"type": "Ready", "status": ready, "message": "lost"}]}}))
    }

    fn pod(app: &str, node: &str, ready: &str) -> Pod {
        from(
            json!({"metadata": {"name": format!("{app}-x"), "labels": {"k8s-app": app}}, "spec": {"nodeName": node, "containers": []},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}}),
        )
    }

    fn agent(name: &str, problems: &[&str]) -> DynamicObject {
        let text =
            json!({"attach": "tcx", "programs": [{"name": "pod", "attach": "tcx"}], "problems": problems})
                .to_string();
        from(json!({"apiVersion": "skep.dev/v1alpha1", "kind": "NodeEndpoints",
            "metadata": {"name": name, "annotations": {DATAPATH_ANNOTATION: text}}}))
    }

    fn facts() -> Facts {
        Facts {
            checks: Ok("[+]ping ok\n[+]store ok\nreadyz check passed\n".into()),
            version: Ok("v1.36.0".into()),
            nodes: Ok(vec![node("node-1", "True")]),
            pods: Ok(vec![
                pod("skep-agent", "node-1", "True"),
                pod("kube-dns", "node-1", "True"),
                pod("skep-operator", "node-1", "True"),
            ]),
            agents: Ok(vec![agent("node-1", &[])]),
            balancing: crate::agent::Answers::new(),
        }
    }

    #[test]
    fn a_whole_cluster_is_healthy() {
        let report = judge(facts());
        assert!(report.is_healthy(), "{:?}", report.problems);
        assert_eq!(report.nodes["node-1"].datapath.as_ref().unwrap().attach, "tcx");
    }

    #[test]
    fn a_node_that_is_not_ready_is_a_problem_with_a_way_out() {
        let report = judge(Facts { nodes: Ok(vec![node("node-1", "Unknown")]), ..facts() });
        assert!(report.problems[0].what.contains("node-1") && report.problems[0].hint.contains("node on"));
    }

    #[test]
    fn a_node_without_agent_is_a_problem() {
        let report = judge(Facts {
            pods: Ok(vec![pod("kube-dns", "node-1", "True"), pod("skep-operator", "node-1", "True")]),
            ..facts()
        });
        assert!(report.problems[0].what.contains("no agent pod on node-1"));
    }

    #[test]
    fn what_an_agent_complains_about_is_shown() {
        let report =
            judge(Facts { agents: Ok(vec![agent("node-1", &["foreign program on eth0"])]), ..facts() });
        assert!(report.problems[0].what.contains("foreign program"));
    }

    #[test]
    fn a_dead_api_server_is_one_problem_not_five() {
        let no = || Err(String::from("connection refused"));
        let report = judge(Facts {
            checks: no(),
            version: Err("x".into()),
            nodes: Err("x".into()),
            pods: Err("x".into()),
            agents: Err("x".into()),
            balancing: crate::agent::Answers::new(),
        });
        assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    }

    #[test]
    fn a_failing_check_is_named() {
        let report =
            judge(Facts { checks: Ok("[+]ping ok\n[-]store failed: reason withheld\n".into()), ..facts() });
        assert_eq!(report.checks[1], Check { name: "store".into(), ok: false });
        assert!(report.problems[0].what.contains("store"));
    }
}
