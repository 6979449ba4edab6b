//! DaemonSets on a few nodes.

use k8s_openapi::api::apps::v1::DaemonSet;
use serde_json::{Value, json};

use super::super::placement::make_pod;
use super::*;

fn set(extra: Value) -> DaemonSet {
    let mut set = json!({
        "metadata": {"name": "ds", "namespace": "ns", "uid": "u", "generation": 1},
        "spec": {
            "selector": {"matchLabels": {"app": "ds"}},
            "template": {"metadata": {"labels": {"app": "ds"}}, "spec": {"containers": [{"name": "c"}]}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
        },
    });
    merge(&mut set, extra);
    serde_json::from_value(set).unwrap()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn nodes(count: usize) -> Vec<Arc<Node>> {
    let node = |n: usize| json!({"metadata": {"name": format!("n{n}"), "labels": {"n": n.to_string()}}});
    (0..count).map(|n| Arc::new(serde_json::from_value(node(n)).unwrap())).collect()
}

fn tainted(node: &Arc<Node>, key: &str, effect: &str) -> Arc<Node> {
    let mut node = (**node).clone();
    let taint = json!({"taints": [{"key": key, "effect": effect}]});
    node.spec = Some(serde_json::from_value(taint).unwrap());
    Arc::new(node)
}

/// A pod of the set that runs on `node` and is ready or not.
fn running(set: &DaemonSet, node: &str, hash: &str, ready: bool) -> Arc<Pod> {
    let mut pod = make_pod(set, node, hash);
    pod.metadata.name = Some(format!("{node}-{hash}"));
    pod.metadata.uid = pod.metadata.name.clone();
    let status = if ready { "True" } else { "False" };
    let condition = json!({"phase": "Running", "conditions": [
        {"type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    pod.status = Some(serde_json::from_value(condition).unwrap());
    if let Some(spec) = pod.spec.as_mut() {
        spec.node_name = Some(node.into());
    }
    Arc::new(pod)
}

fn go(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[Arc<Pod>], hash: &str) -> Plan {
    plan(&Observed { set, nodes, pods, hash }, Timestamp::now())
}

fn names(pods: &[PodRef]) -> Vec<&str> {
    pods.iter().map(|pod| pod.name.as_str()).collect()
}

#[test]
fn every_node_gets_one_pod() {
    let (set, nodes) = (set(json!({})), nodes(3));
    assert_eq!(go(&set, &nodes, &[], "h1").create_on, ["n0", "n1", "n2"]);
    let pods: Vec<_> = (0..3).map(|n| running(&set, &format!("n{n}"), "h1", true)).collect();
    assert_eq!(go(&set, &nodes, &pods, "h1"), Plan::default());
}

#[test]
fn pending_pod_counts_for_the_node_its_affinity_names() {
    let (set, nodes) = (set(json!({})), nodes(1));
    let mut pending = make_pod(&set, "n0", "h1");
    pending.metadata.uid = Some("p".into());
    assert_eq!(go(&set, &nodes, &[Arc::new(pending)], "h1"), Plan::default());
}

#[test]
fn taints_keep_new_pods_away_and_no_execute_removes_them() {
    let (set, mut nodes) = (set(json!({})), nodes(3));
    let pods: Vec<_> = (1..3).map(|n| running(&set, &format!("n{n}"), "h1", true)).collect();
    nodes[0] = tainted(&nodes[0], "dedicated", "NoSchedule");
    nodes[1] = tainted(&nodes[1], "dedicated", "NoSchedule");
    nodes[2] = tainted(&nodes[2], "dedicated", "NoExecute");
    let plan = go(&set, &nodes, &pods, "h1");
    assert!(plan.create_on.is_empty());
    assert_eq!(names(&plan.delete), ["n2-h1"]);
}

#[test]
fn node_trouble_does_not_remove_them() {
    let (set, mut nodes) = (set(json!({})), nodes(1));
    nodes[0] = tainted(&nodes[0], "node.kubernetes.io/unreachable", "NoExecute");
    let pods = [running(&set, "n0", "h1", false)];
    assert_eq!(go(&set, &nodes, &pods, "h1"), Plan::default());
}

#[test]
fn selector_limits_the_nodes() {
    let set = set(json!({"spec": {"template": {"spec": {"nodeSelector": {"n": "1"}}}}}));
    assert_eq!(go(&set, &nodes(3), &[], "h1").create_on, ["n1"]);
}

#[test]
fn update_replaces_one_node_at_a_time() {
    let (set, nodes) = (set(json!({})), nodes(3));
    let mut pods: Vec<_> = (0..3).map(|n| running(&set, &format!("n{n}"), "h1", true)).collect();
    assert_eq!(names(&go(&set, &nodes, &pods, "h2").delete), ["n0-h1"]);
    pods[0] = running(&set, "n0", "h2", false);
    assert_eq!(go(&set, &nodes, &pods, "h2"), Plan::default());
    pods[0] = running(&set, "n0", "h2", true);
    assert_eq!(names(&go(&set, &nodes, &pods, "h2").delete), ["n1-h1"]);
}

#[test]
fn unavailable_old_pods_are_replaced_at_once() {
    let (set, nodes) = (set(json!({})), nodes(3));
    let pods: Vec<_> = (0..3).map(|n| running(&set, &format!("n{n}"), "h1", n == 2)).collect();
    assert_eq!(names(&go(&set, &nodes, &pods, "h2").delete), ["n0-h1", "n1-h1"]);
}

#[test]
fn on_delete_leaves_old_pods_alone() {
    let set = set(json!({"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}}));
    let pods = [running(&set, "n0", "h1", true)];
    assert_eq!(go(&set, &nodes(1), &pods, "h2"), Plan::default());
}

#[test]
fn surge_starts_the_new_pod_first() {
    let rolling =
        json!({"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}}});
    let (set, nodes) = (set(rolling), nodes(2));
    let mut pods: Vec<_> = (0..2).map(|n| running(&set, &format!("n{n}"), "h1", true)).collect();
    let plan = go(&set, &nodes, &pods, "h2");
    assert_eq!((plan.create_on, plan.delete.len()), (vec!["n0".to_owned()], 0));
    pods.push(running(&set, "n0", "h2", false));
    assert_eq!(go(&set, &nodes, &pods, "h2"), Plan::default());
    pods[2] = running(&set, "n0", "h2", true);
    let plan = go(&set, &nodes, &pods, "h2");
    assert_eq!(names(&plan.delete), ["n0-h1"]);
}

#[test]
fn status_counts_nodes() {
    let (set, nodes) = (set(json!({})), nodes(3));
    let pods = [running(&set, "n0", "h2", true), running(&set, "n1", "h1", true)];
    let status = status(&Observed { set: &set, nodes: &nodes, pods: &pods, hash: "h2" }, Timestamp::now());
    assert_eq!((status.desired_number_scheduled, status.current_number_scheduled), (3, 2));
    assert_eq!((status.number_available, status.updated_number_scheduled), (Some(2), Some(1)));
}
