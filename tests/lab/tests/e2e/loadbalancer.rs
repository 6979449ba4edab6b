//! Addresses for Services of type LoadBalancer: who gets which, who is told why not, and which node answers
//! for them on the nodes' network.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use skep_test_lab::asking::NAMESPACE;
use skep_test_lab::cluster::Cluster;
use skep_test_lab::command::{eventually, run};
use skep_test_lab::{outside, process};

use crate::services::{
    ALL, NODES, OUTSIDE, SOON, ask_often, balancer_address, field, prepare, reach, with_text,
};

/// How long another node may take: a Lease's duration, what spreads the nodes, and a margin for a busy machine.
const TAKEOVER: Duration = Duration::from_secs(25);
/// Six addresses for Services with the label `e2e=pools`: the first and last of the prefix are kept back.
const POOL: &str = "\
apiVersion: skep.dev/v1alpha1
kind: LoadBalancerIPPool
metadata: {name: e2e-pools}
spec:
  blocks: [{cidr: 10.89.0.240/29}]
  serviceSelector: {matchLabels: {e2e: pools}}
";

/// A Service for the pool, in front of every backend; `more` goes into its metadata or its spec.
fn service(name: &str, port: u16, annotations: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\n\
         metadata: {{name: {name}, labels: {{e2e: pools}}, annotations: {{{annotations}}}}}\n\
         spec: {{type: LoadBalancer, loadBalancerClass: skep.dev/l2, selector: {{app: web}}, {spec}\n  \
         ports: [{{port: {port}, targetPort: 8080}}]}}\n"
    )
}

fn pool(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: skep.dev/v1alpha1\nkind: LoadBalancerIPPool\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

/// The condition of an object's status, once it is there and `wanted` agrees.
fn condition(cluster: &Cluster, object: &str, kind: &str, wanted: fn(&Value) -> bool) -> Result<Value> {
    eventually(SOON, || {
        let object = cluster.json(&format!("get -n {NAMESPACE} {object}"))?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.into_iter().find(|condition| condition["type"] == kind);
        let found = found.with_context(|| format!("no condition {kind}: {}", object["status"]))?;
        ensure!(wanted(&found), "{found}");
        Ok(found)
    })
}

/// Why the Service lacks an address: the condition's reason and message.
fn complaint(cluster: &Cluster, service: &str) -> Result<String> {
    let kind = "lbipam.skep.dev/IPAssigned";
    let found = condition(cluster, &format!("service/{service}"), kind, |found| found["status"] == "False")?;
    Ok(format!("{}: {}", found["reason"].as_str().unwrap_or("?"), found["message"].as_str().unwrap_or("?")))
}

fn refusal(cluster: &Cluster, pool: &str, kind: &str) -> Result<String> {
    let object = format!("loadbalancerippool/{pool}");
    let found = condition(cluster, &object, kind, |found| found["status"] == "True")?;
    condition(cluster, &object, "Ready", |found| found["status"] == "False")?;
    Ok(found["message"].as_str().unwrap_or("?").to_owned())
}

pub(crate) fn pools_give_addresses_and_count_them(cluster: &Cluster) -> Result<()> {
    let text = format!("{POOL}{}{}", service("first", 80, "", ""), service("second", 80, "", ""));
    with_text(cluster, &text, || {
        let given: BTreeSet<String> = ["first", "second"]
            .map(|name| balancer_address(cluster, name))
            .into_iter()
            .collect::<Result<_>>()?;
        let pool: BTreeSet<String> = (241..=246).map(|n| format!("10.89.0.{n}")).collect();
        ensure!(given.len() == 2 && given.is_subset(&pool), "{given:?}");
        ensure!(field(cluster, "first", ".status.loadBalancer.ingress[0].ipMode")? == "VIP");
        let address = balancer_address(cluster, "first")?;
        let table = cluster.kubectl(&format!("get service -n {NAMESPACE} first"))?;
        ensure!(table.contains("EXTERNAL-IP") && table.contains(&address), "{table}");
        eventually(SOON, || {
            let table = cluster.kubectl("get loadbalancerippools e2e-pools")?;
            let row: Vec<&str> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
            ensure!(row.get(1..7) == Some(&["false", "True", "Ready", "6", "2", "4"]), "{table}");
            let story = cluster.kubectl(&format!("describe service -n {NAMESPACE} first"))?;
            ensure!(story.contains("IPAssigned") && story.contains("from the pool e2e-pools"), "{story}");
            Ok(())
        })?;
        // What stops to be a balancer's gives its address back.
        let patch = r#"{"spec":{"type":"ClusterIP","loadBalancerClass":null}}"#;
        cluster.kubectl(&format!("patch service -n {NAMESPACE} first -p {patch}"))?;
        eventually(SOON, || {
            let left = field(cluster, "first", ".status")?;
            ensure!(!left.contains(&address) && !left.contains("IPAssigned"), "{left}");
            Ok(())
        })
    })
}

pub(crate) fn a_new_operator_gives_nobody_another_address(cluster: &Cluster) -> Result<()> {
    let names = ["first", "second", "third"];
    let text = names.map(|name| service(name, 80, "", "")).concat();
    with_text(cluster, &format!("{POOL}{text}"), || {
        let given =
            || names.map(|name| balancer_address(cluster, name)).into_iter().collect::<Result<Vec<_>>>();
        let before = given()?;
        cluster.kubectl(&format!("delete service -n {NAMESPACE} first"))?;
        cluster.kubectl("delete pod -n kube-system -l k8s-app=skep-operator")?;
        crate::services::apply(cluster, &service("first", 80, "", ""))?;
        let after = eventually(Duration::from_secs(60), given)?;
        ensure!(before[1..] == after[1..] && !before[1..].contains(&after[0]), "{before:?}, then {after:?}");
        Ok(())
    })
}

pub(crate) fn pools_that_overlap_or_reach_into_the_cluster_are_refused(cluster: &Cluster) -> Result<()> {
    with_text(cluster, POOL, || {
        // Of two pools made within one second the first by name is in the right: the other one here.
        let bad = [
            pool("e2e-twice", "blocks: [{start: 10.89.0.246, stop: 10.89.0.250}]"),
            pool("e2e-pods", "blocks: [{cidr: 10.244.7.0/24}]"),
            pool("e2e-services", "blocks: [{cidr: 10.96.9.0/24}]"),
            pool("e2e-reversed", "blocks: [{start: 10.89.3.9, stop: 10.89.3.1}]"),
        ];
        with_text(cluster, &bad.concat(), || {
            let overlap = refusal(cluster, "e2e-twice", "Conflict")?;
            ensure!(
                overlap.contains("10.89.0.246-10.89.0.247") && overlap.contains("e2e-pools"),
                "{overlap}"
            );
            let pods = refusal(cluster, "e2e-pods", "InsidePodRange")?;
            ensure!(pods.contains("10.244.0.0/16"), "{pods}");
            let services = refusal(cluster, "e2e-services", "InsideServiceRange")?;
            ensure!(services.contains("10.96.0.0/16"), "{services}");
            let object = "loadbalancerippool/e2e-reversed";
            let reversed = condition(cluster, object, "Ready", |found| found["reason"] == "Invalid")?;
            ensure!(
                reversed["message"].as_str().is_some_and(|text| text.contains("comes after")),
                "{reversed}"
            );
            Ok(())
        })
    })
}

pub(crate) fn a_service_without_address_is_told_why(cluster: &Cluster) -> Result<()> {
    let wants = |ip: &str| format!("lbipam.skep.dev/ips: \"{ip}\"");
    let text = [
        POOL.to_owned(),
        service("holder", 80, &wants("10.89.0.243"), ""),
        service("rival", 80, &wants("10.89.0.243"), ""),
        service("astray", 80, &wants("192.0.2.1"), ""),
        service("typo", 80, &wants("10.89.0.x"), ""),
        service("node", 80, &wants("10.89.0.11"), ""),
    ];
    with_text(cluster, &text.concat(), || {
        ensure!(balancer_address(cluster, "holder")? == "10.89.0.243");
        for (name, words) in [
            ("rival", ["AddressInUse", "services/holder"]),
            ("astray", ["AddressOutsidePools", "192.0.2.1"]),
            ("typo", ["InvalidRequest", "10.89.0.x"]),
            ("node", ["AddressOutsidePools", "10.89.0.11"]),
        ] {
            let said = complaint(cluster, name)?;
            ensure!(words.iter().all(|word| said.contains(word)), "{name}: {said}");
        }
        let events = cluster.kubectl(&format!("get events -n {NAMESPACE}"))?;
        ensure!(events.contains("AddressInUse"), "{events}");
        // Who had to wait gets the address as soon as it is free.
        cluster.kubectl(&format!("delete service -n {NAMESPACE} holder"))?;
        ensure!(balancer_address(cluster, "rival")? == "10.89.0.243");
        Ok(())
    })
}

pub(crate) fn services_of_one_key_share_an_address_and_both_are_served(cluster: &Cluster) -> Result<()> {
    let key = "lbipam.skep.dev/sharing-key: e2e";
    let text = [POOL.to_owned(), service("plain", 80, key, ""), service("admin", 8082, key, "")];
    with_text(cluster, &text.concat(), || {
        let (plain, admin) = (balancer_address(cluster, "plain")?, balancer_address(cluster, "admin")?);
        ensure!(plain == admin, "{plain} and {admin}");
        ask_often(cluster, OUTSIDE, &format!("tcp {plain}:80"), 20)?.only(&ALL)?;
        ask_often(cluster, OUTSIDE, &format!("tcp {plain}:8082"), 20)?.only(&ALL)
    })
}

pub(crate) fn a_removed_pool_takes_its_addresses_along(cluster: &Cluster) -> Result<()> {
    let text = format!("{POOL}{}", service("mover", 80, "", ""));
    with_text(cluster, &text, || {
        let before = balancer_address(cluster, "mover")?;
        cluster.kubectl("delete loadbalancerippool e2e-pools e2e-services --ignore-not-found")?;
        let said = complaint(cluster, "mover")?;
        ensure!(said.contains("NoMatchingPool"), "{said}");
        ensure!(field(cluster, "mover", ".status.loadBalancer.ingress")?.is_empty());
        let other = pool("e2e-other", "blocks: [{start: 10.89.0.249, stop: 10.89.0.249}]");
        with_text(cluster, &other, || {
            let after = balancer_address(cluster, "mover")?;
            ensure!(after == "10.89.0.249" && before != after, "{before}, then {after}");
            ask_often(cluster, OUTSIDE, &format!("tcp {after}:80"), 10).map(drop)
        })
    })?;
    let pools = crate::services::manifest("pool")?;
    crate::services::apply(cluster, &pools).map(drop)
}

/// The node that holds the address's Lease.
fn leader(cluster: &Cluster, address: &str) -> Result<String> {
    let lease = format!("skep-l2-{}", address.replace('.', "-"));
    let holder = cluster.kubectl(&format!(
        "get lease -n kube-system {lease} -o jsonpath={{.spec.holderIdentity}} --ignore-not-found"
    ))?;
    ensure!(!holder.is_empty(), "nobody holds {lease}");
    Ok(holder)
}

/// The node whose link-layer address the router has for the address.
fn neighbour(cluster: &Cluster, address: &str) -> Result<String> {
    let ip = |line: &str| {
        run(Command::new("ip").args(line.split_whitespace()), b"", Duration::from_secs(10))?.ok()
    };
    let row = ip(&format!("-n {} neighbour show {address}", cluster.router()))?;
    for (node, _) in NODES {
        let link = ip(&format!("-n {} -br link show eth0", cluster.machine(node))).unwrap_or_default();
        let mac = link.split_whitespace().nth(2).unwrap_or("?").to_owned();
        if row.contains(&mac) {
            return Ok(node.to_owned());
        }
    }
    anyhow::bail!("the router knows nobody for {address}: {row:?}")
}

/// The address is served, by way of the node that holds its Lease.
fn announced_by(cluster: &Cluster, address: &str) -> Result<String> {
    reach(cluster, OUTSIDE, &format!("tcp {address}:80"))?;
    let (leader, neighbour) = (leader(cluster, address)?, neighbour(cluster, address)?);
    ensure!(leader == neighbour, "{leader} holds the Lease, {neighbour} is asked");
    Ok(leader)
}

pub(crate) fn one_node_announces_an_address_and_keeps_it_over_a_restart(cluster: &Cluster) -> Result<()> {
    with_text(cluster, &format!("{POOL}{}", service("vip", 80, "", "")), || {
        let address = balancer_address(cluster, "vip")?;
        let before = eventually(SOON, || announced_by(cluster, &address))?;
        process::kill_9(&cluster.machine(&before), "skep-agent")?;
        let limit = Instant::now() + Duration::from_secs(12);
        while Instant::now() < limit {
            OUTSIDE.must(cluster, &format!("tcp {address}:80 --count 20"))?;
            ensure!(leader(cluster, &address)? == before, "the address moved");
            std::thread::sleep(Duration::from_millis(500));
        }
        eventually(SOON, || announced_by(cluster, &address)).map(drop)
    })
}

/// Stops a process for as long as this lives.
struct Frozen(Vec<i32>);

impl Frozen {
    fn new(machine: &str, name: &str) -> Result<Self> {
        let pids = process::find(machine, name);
        ensure!(!pids.is_empty(), "no {name} runs on {machine}");
        for pid in &pids {
            kill(Pid::from_raw(*pid), Signal::SIGSTOP)?;
        }
        Ok(Self(pids))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            // It may have been replaced meanwhile.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGCONT);
        }
    }
}

pub(crate) fn another_node_takes_over_when_the_agent_hangs(cluster: &Cluster) -> Result<()> {
    with_text(cluster, &format!("{POOL}{}", service("vip", 80, "", "")), || {
        let address = balancer_address(cluster, "vip")?;
        let before = eventually(SOON, || announced_by(cluster, &address))?;
        let frozen = Frozen::new(&cluster.machine(&before), "skep-agent")?;
        let after = eventually(TAKEOVER, || {
            let after = announced_by(cluster, &address)?;
            ensure!(after != before, "{before} still has it");
            Ok(after)
        })?;
        ask_often(cluster, OUTSIDE, &format!("tcp {address}:80"), 30)?.only(&ALL)?;
        drop(frozen);
        // The one that wakes up learns that it is not the leader any more.
        std::thread::sleep(Duration::from_secs(3));
        ensure!(announced_by(cluster, &address)? == after, "the address went back");
        ask_often(cluster, OUTSIDE, &format!("tcp {address}:80"), 30).map(drop)
    })
}

pub(crate) fn an_excluded_node_hands_its_addresses_over_at_once(cluster: &Cluster) -> Result<()> {
    const LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
    with_text(cluster, &format!("{POOL}{}", service("vip", 80, "", "")), || {
        let address = balancer_address(cluster, "vip")?;
        let before = eventually(SOON, || announced_by(cluster, &address))?;
        cluster.kubectl(&format!("label node {before} {LABEL}=true"))?;
        let moved = eventually(Duration::from_secs(8), || {
            let after = announced_by(cluster, &address)?;
            ensure!(after != before, "{before} still has it");
            Ok(())
        });
        cluster.kubectl(&format!("label node {before} {LABEL}-"))?;
        moved
    })
}

pub(crate) fn local_traffic_is_announced_where_the_pods_are(cluster: &Cluster) -> Result<()> {
    prepare(cluster)?;
    let local = service("vip", 80, "", "externalTrafficPolicy: Local,")
        .replace("selector: {app: web}", "selector: {app: web, place: first}");
    with_text(cluster, &format!("{POOL}{local}"), || {
        let address = balancer_address(cluster, "vip")?;
        let node = eventually(SOON, || announced_by(cluster, &address))?;
        ensure!(node == "node-1", "{node} announces it, the pod is on node-1");
        let tally = ask_often(cluster, OUTSIDE, &format!("tcp {address}:80"), 20)?;
        tally.only(&["one"])?;
        tally.seen_as(outside::ADDRESS)
    })
}

pub(crate) fn policies_choose_who_announces_what(cluster: &Cluster) -> Result<()> {
    const POLICY: &str = "\
---
apiVersion: skep.dev/v1alpha1
kind: L2AnnouncementPolicy
metadata: {name: e2e-pools}
spec:
  nodeSelector: {matchLabels: {kubernetes.io/hostname: node-3}}
  serviceSelector: {matchLabels: {e2e: pools}}
  interfaces: [\"^eth[0-9]+$\"]
";
    with_text(cluster, &format!("{POOL}{POLICY}{}", service("vip", 80, "", "")), || {
        // The tests' own policy lets every node announce everything.
        cluster.kubectl("delete l2announcementpolicy e2e-services --ignore-not-found")?;
        let address = balancer_address(cluster, "vip")?;
        eventually(TAKEOVER, || {
            let node = announced_by(cluster, &address)?;
            ensure!(node == "node-3", "{node} announces it");
            Ok(())
        })?;
        let broken = "{\"spec\":{\"interfaces\":[\"eth(\"]}}";
        cluster.kubectl(&format!("patch l2announcementpolicy e2e-pools --type=merge -p {broken}"))?;
        let object = "l2announcementpolicy/e2e-pools";
        condition(cluster, object, "Ready", |found| found["reason"] == "Invalid").map(drop)
    })?;
    crate::services::apply(cluster, &crate::services::manifest("pool")?).map(drop)
}
