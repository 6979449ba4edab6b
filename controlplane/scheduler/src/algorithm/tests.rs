//! Decisions in small clusters, and against a naive model.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::{Value, json};

use super::*;

fn node(name: &str, extra: Value) -> Arc<Node> {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}},
    });
    json_patch::merge(&mut node, &extra);
    Arc::new(serde_json::from_value(node).unwrap())
}

fn pod(name: &str, extra: Value) -> Arc<PodInfo> {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m", "memory": "256Mi"}}}]},
    });
    json_patch::merge(&mut pod, &extra);
    let pod: Pod = serde_json::from_value(pod).unwrap();
    Arc::new(PodInfo::new(Arc::new(pod)))
}

fn cluster(nodes: &[Arc<Node>]) -> Cache {
    let mut cache = Cache::default();
    for node in nodes {
        cache.set_node(node.clone());
    }
    cache
}

fn decide(cache: &Cache, pod: &PodInfo) -> Result<String, FitError> {
    Algorithm::default().decide(cache, pod, &mut SmallRng::seed_from_u64(1))
}

/// Places pods one after another and returns how many each node got.
fn place(cache: &mut Cache, pods: &[Arc<PodInfo>]) -> BTreeMap<String, usize> {
    let (mut algorithm, mut rng) = (Algorithm::default(), SmallRng::seed_from_u64(7));
    let mut counts = BTreeMap::new();
    for pod in pods {
        if let Ok(node) = algorithm.decide(cache, pod, &mut rng) {
            cache.assume(pod.clone(), &node);
            *counts.entry(node).or_default() += 1;
        }
    }
    counts
}

#[test]
fn replicas_spread_over_nodes() {
    let mut cache = cluster(&[node("a", json!({})), node("b", json!({})), node("c", json!({}))]);
    let owner =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}]);
    let pods: Vec<_> =
        (0..6).map(|n| pod(&format!("p{n}"), json!({"metadata": {"ownerReferences": owner}}))).collect();
    assert_eq!(place(&mut cache, &pods).into_values().collect::<Vec<_>>(), [2, 2, 2]);
}

#[test]
fn message_counts_each_reason() {
    let tainted = json!({"spec": {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}});
    let cache = cluster(&[node("a", json!({})), node("b", tainted.clone()), node("c", tainted)]);
    let greedy =
        pod("p", json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "8"}}}]}}));
    let error = decide(&cache, &greedy).unwrap_err();
    assert_eq!(
        error.message,
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {gpu: yes}. "
    );
}

#[test]
fn no_nodes_at_all_says_so() {
    let error = decide(&Cache::default(), &pod("p", json!({}))).unwrap_err();
    assert_eq!(error.message, "no nodes available to schedule pods");
}

#[test]
fn cordoned_node_is_left_out() {
    let cache = cluster(&[node("a", json!({"spec": {"unschedulable": true}})), node("b", json!({}))]);
    assert_eq!(decide(&cache, &pod("p", json!({}))).unwrap(), "b");
}

#[test]
fn host_ports_do_not_collide() {
    let mut cache = cluster(&[node("a", json!({})), node("b", json!({}))]);
    let ports =
        json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}});
    let pods: Vec<_> = (0..3).map(|n| pod(&format!("p{n}"), ports.clone())).collect();
    assert_eq!(place(&mut cache, &pods).into_values().collect::<Vec<_>>(), [1, 1]);
    let error = decide(&cache, &pods[2]).unwrap_err();
    assert!(error.message.contains("2 node(s) didn't have free ports for the requested pod ports"));
}

#[test]
fn selector_and_preference_choose_nodes() {
    let labelled = |name: &str, disk: &str| node(name, json!({"metadata": {"labels": {"disk": disk}}}));
    let cache = cluster(&[labelled("a", "ssd"), labelled("b", "hdd"), labelled("c", "ssd")]);
    let wants = pod("p", json!({"spec": {"nodeSelector": {"disk": "hdd"}}}));
    assert_eq!(decide(&cache, &wants).unwrap(), "b");
    let term = json!({"matchExpressions": [{"key": "disk", "operator": "In", "values": ["hdd"]}]});
    let prefers = json!({"spec": {"affinity": {"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 50, "preference": term}]}}}});
    assert_eq!(decide(&cache, &pod("q", prefers)).unwrap(), "b");
}

#[test]
fn anti_affinity_keeps_apart_in_both_directions() {
    let mut cache = cluster(&[node("a", json!({})), node("b", json!({}))]);
    let term =
        json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}});
    let anti = json!({"spec": {"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [term]}}}});
    let pods: Vec<_> = (0..2).map(|n| pod(&format!("p{n}"), anti.clone())).collect();
    assert_eq!(place(&mut cache, &pods).len(), 2);
    let plain = decide(&cache, &pod("plain", json!({}))).unwrap_err();
    assert!(plain.message.contains("2 node(s) didn't satisfy existing pods anti-affinity rules"));
    let strict = decide(&cache, &pod("strict", anti)).unwrap_err();
    assert!(strict.message.contains("2 node(s) didn't match pod anti-affinity rules"));
}

#[test]
fn affinity_to_itself_lets_the_first_pod_in() {
    let mut cache = cluster(&[node("a", json!({})), node("b", json!({}))]);
    let term =
        json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}});
    let near = json!({"spec": {"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [term]}}}});
    let pods: Vec<_> = (0..3).map(|n| pod(&format!("p{n}"), near.clone())).collect();
    assert_eq!(place(&mut cache, &pods).into_values().collect::<Vec<_>>(), [3]);
}

#[test]
fn hard_spread_stays_within_its_skew() {
    let zoned = |name: &str, zone: &str| node(name, json!({"metadata": {"labels": {"zone": zone}}}));
    let mut cache = cluster(&[zoned("a", "z1"), zoned("b", "z1"), zoned("c", "z2")]);
    let constraint = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}});
    let spread = json!({"spec": {"topologySpreadConstraints": [constraint]}});
    let pods: Vec<_> = (0..8).map(|n| pod(&format!("p{n}"), spread.clone())).collect();
    let counts = place(&mut cache, &pods);
    let first = counts.get("a").unwrap_or(&0) + counts.get("b").unwrap_or(&0);
    assert_eq!((first, counts["c"]), (4, 4));
}

/// A pod of a priority that takes so much CPU.
fn important(name: &str, priority: i32, cpu: &str, extra: Value) -> Arc<PodInfo> {
    let mut spec = json!({"spec": {"priority": priority,
        "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
    json_patch::merge(&mut spec, &extra);
    pod(name, spec)
}

fn room(cache: &Cache, pod: &PodInfo) -> Option<(String, Vec<String>)> {
    let mut algorithm = Algorithm::default();
    algorithm.decide(cache, pod, &mut SmallRng::seed_from_u64(1)).unwrap_err();
    let room = algorithm.make_room(cache, pod)?;
    Some((room.node, room.victims.iter().map(|victim| victim.uid.clone()).collect()))
}

#[test]
fn room_is_made_where_it_costs_least() {
    let mut cache = cluster(&[node("a", json!({})), node("b", json!({}))]);
    for (name, priority, cpu, node) in
        [("a1", 5, "1", "a"), ("a2", 1, "1", "a"), ("b1", 3, "1", "b"), ("b2", 3, "1", "b")]
    {
        cache.assume(important(name, priority, cpu, json!({})), node);
    }
    let urgent = important("urgent", 10, "1", json!({}));
    assert_eq!(room(&cache, &urgent), Some(("a".into(), vec!["a2".into()])));
    let meek = important("meek", 10, "1", json!({"spec": {"preemptionPolicy": "Never"}}));
    assert_eq!(room(&cache, &meek), None);
    assert_eq!(room(&cache, &important("equal", 1, "1", json!({}))), None);
}

#[test]
fn no_room_is_made_where_the_pod_may_not_run() {
    let mut cache = cluster(&[node("a", json!({"spec": {"unschedulable": true}}))]);
    cache.assume(important("a1", 0, "2", json!({})), "a");
    assert_eq!(room(&cache, &important("urgent", 10, "1", json!({}))), None);
}

#[derive(Debug, Clone)]
struct Ask {
    cpu: i64,
    memory: i64,
    bears: bool,
    disk: Option<bool>,
}

fn asks() -> impl Strategy<Value = Ask> {
    (1i64..2500, 1i64..4000, any::<bool>(), any::<Option<bool>>())
        .prop_map(|(cpu, memory, bears, disk)| Ask { cpu, memory, bears, disk })
}

proptest! {
    #[test]
    fn equals_the_naive_model(
        nodes in prop::collection::vec((500i64..4000, 500i64..8000, 1usize..4, any::<bool>(), any::<bool>()), 1..6),
        pods in prop::collection::vec(asks(), 1..12),
    ) {
        let objects: Vec<_> = nodes.iter().enumerate().map(|(index, (cpu, memory, count, tainted, ssd))| {
            let taints = if *tainted { json!([{"key": "k", "effect": "NoSchedule"}]) } else { json!([]) };
            node(&format!("n{index}"), json!({
                "metadata": {"labels": {"ssd": ssd.to_string()}},
                "spec": {"taints": taints},
                "status": {"allocatable": {"cpu": format!("{cpu}m"), "memory": memory.to_string(), "pods": count.to_string()}},
            }))
        }).collect();
        let mut cache = cluster(&objects);
        let mut used = vec![(0i64, 0i64, 0usize); nodes.len()];
        let (mut algorithm, mut rng) = (Algorithm::default(), SmallRng::seed_from_u64(3));
        for (index, ask) in pods.iter().enumerate() {
            let mut spec = json!({"containers": [{"name": "c", "resources": {"requests":
                {"cpu": format!("{}m", ask.cpu), "memory": ask.memory.to_string()}}}]});
            if ask.bears {
                spec["tolerations"] = json!([{"key": "k", "operator": "Exists"}]);
            }
            if let Some(ssd) = ask.disk {
                spec["nodeSelector"] = json!({"ssd": ssd.to_string()});
            }
            let pod = pod(&format!("p{index}"), json!({"spec": spec}));
            let fits = |number: usize| {
                let (cpu, memory, count, tainted, ssd) = nodes[number];
                used[number].0 + ask.cpu <= cpu
                    && used[number].1 + ask.memory <= memory
                    && used[number].2 < count
                    && (!tainted || ask.bears)
                    && ask.disk.is_none_or(|wanted| wanted == ssd)
            };
            let feasible: Vec<usize> = (0..nodes.len()).filter(|number| fits(*number)).collect();
            match algorithm.decide(&cache, &pod, &mut rng) {
                Err(_) => prop_assert!(feasible.is_empty()),
                Ok(name) => {
                    let number: usize = name[1..].parse().unwrap();
                    prop_assert!(feasible.contains(&number));
                    used[number] = (used[number].0 + ask.cpu, used[number].1 + ask.memory, used[number].2 + 1);
                    cache.assume(pod, &name);
                }
            }
        }
    }
}
