//! What all tests of Services share: backends, clients, and manifests that come and go. The manifests are
//! in `tests/e2e/services`, one for each kind and field.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use skep_test_lab::asking::{Asker, NAMESPACE, Tally};
use skep_test_lab::cluster::Cluster;
use skep_test_lab::command::eventually;
use skep_test_lab::outside;

/// A pod on node-1.
pub(crate) const INSIDE: Asker = Asker::Pod("inside");
/// A pod on node-2.
pub(crate) const OTHER: Asker = Asker::Pod("other");
/// A pod on the network of node-2.
pub(crate) const HOST: Asker = Asker::Pod("host");
/// A client beyond the router.
pub(crate) const OUTSIDE: Asker = Asker::Outside;
/// The nodes and their addresses.
pub(crate) const NODES: [(&str, &str); 3] =
    [("node-1", "10.89.0.11"), ("node-2", "10.89.0.12"), ("node-3", "10.89.0.13")];
/// The backends that every manifest finds, on node-1, node-2 and node-3.
pub(crate) const ALL: [&str; 3] = ["one", "two", "three"];
/// How long a change may take to be in force everywhere.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A manifest's text.
pub(crate) fn manifest(name: &str) -> Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/services");
    let path = folder.join(format!("{name}.yaml"));
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Backends, clients, the pool of addresses and the client outside, unless they are there.
pub(crate) fn prepare(cluster: &Cluster) -> Result<()> {
    let nodes = NODES.map(|(name, _)| name);
    outside::ensure(cluster, &nodes)?;
    if !cluster.kubectl(&format!("get namespace {NAMESPACE} --ignore-not-found -o name"))?.is_empty() {
        return Ok(());
    }
    cluster.kubectl(&format!("create namespace {NAMESPACE}"))?;
    apply(cluster, &manifest("backends")?)?;
    apply(cluster, &manifest("pool")?)?;
    cluster.kubectl(&format!("wait -n {NAMESPACE} --for=condition=Ready pods --all --timeout=60s")).map(drop)
}

/// Applies a text in the tests' namespace.
pub(crate) fn apply(cluster: &Cluster, text: &str) -> Result<String> {
    cluster.with_manifest(&["apply", "-n", NAMESPACE], text)?.ok()
}

/// Runs a test with a manifest in force; removes it whatever happened.
pub(crate) fn with(cluster: &Cluster, name: &str, test: impl FnOnce() -> Result<()>) -> Result<()> {
    with_text(cluster, &manifest(name)?, test)
}

/// The same with a text.
pub(crate) fn with_text(cluster: &Cluster, text: &str, test: impl FnOnce() -> Result<()>) -> Result<()> {
    prepare(cluster)?;
    let result = apply(cluster, text).and_then(|_| test());
    if result.is_err() {
        explain(cluster);
    }
    let words = ["delete", "-n", NAMESPACE, "--wait=false", "--ignore-not-found"];
    let removed = cluster.with_manifest(&words, text)?.ok();
    result.and(removed.map(drop))
}

/// What the nodes know, beside a failure.
fn explain(cluster: &Cluster) {
    for line in ["service list", "bpf lb --limit 60"] {
        if let Ok(said) = cluster.ask_skep(line) {
            eprintln!("--- skep {line}\n{}{}", said.out, said.err);
        }
    }
}

/// A field of a Service.
pub(crate) fn field(cluster: &Cluster, service: &str, path: &str) -> Result<String> {
    cluster.kubectl(&format!("get service -n {NAMESPACE} {service} -o jsonpath={{{path}}}"))
}

/// Its address inside of the cluster.
pub(crate) fn address(cluster: &Cluster, service: &str) -> Result<String> {
    let address = field(cluster, service, ".spec.clusterIP")?;
    ensure!(!address.is_empty(), "{service} has no address");
    Ok(address)
}

/// Its address for the world, once it has one.
pub(crate) fn balancer_address(cluster: &Cluster, service: &str) -> Result<String> {
    eventually(SOON, || {
        let address = field(cluster, service, ".status.loadBalancer.ingress[0].ip")?;
        ensure!(!address.is_empty(), "{service} is given no address");
        Ok(address)
    })
}

/// The address of a pod.
pub(crate) fn pod_address(cluster: &Cluster, pod: &str) -> Result<String> {
    cluster.kubectl(&format!("get pod -n {NAMESPACE} {pod} -o jsonpath={{.status.podIP}}"))
}

/// Waits for a first answer, then asks as often as told: nothing may be lost any more.
pub(crate) fn ask_often(cluster: &Cluster, asker: Asker, server: &str, times: u32) -> Result<Tally> {
    reach(cluster, asker, server)?;
    asker.must(cluster, &format!("{server} --count {times}"))
}

/// Waits for a first answer.
pub(crate) fn reach(cluster: &Cluster, asker: Asker, server: &str) -> Result<()> {
    eventually(SOON, || asker.must(cluster, &format!("{server} --wait 700")).map(drop))
}

/// Waits until a question stays without an answer.
pub(crate) fn unreachable(cluster: &Cluster, asker: Asker, server: &str) -> Result<()> {
    eventually(SOON, || asker.must_not(cluster, &format!("{server} --wait 700")))
}

pub(crate) fn services_leave_nothing_behind(cluster: &Cluster) -> Result<()> {
    prepare(cluster)?;
    cluster.with_manifest(&["delete", "--wait=false"], &manifest("pool")?)?.ok()?;
    cluster.kubectl(&format!("delete namespace {NAMESPACE} --timeout=60s"))?;
    outside::remove(cluster)?;
    eventually(SOON, || {
        let left = cluster.ask_skep("bpf lb")?.ok()?;
        ensure!(!left.contains(&format!("{NAMESPACE}/")), "frontends are left:\n{left}");
        Ok(())
    })
}
