//! Whatever dies is restarted, and the workload goes on answering where it can.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use skep_test_lab::cluster::Cluster;
use skep_test_lab::command::eventually;
use skep_test_lab::process;

const SOON: Duration = Duration::from_secs(60);

/// The first pid that was not there before.
fn replaced(machine: &str, name: &str, before: &[i32]) -> Result<()> {
    eventually(SOON, || {
        let now = process::find(machine, name);
        ensure!(
            !now.is_empty() && now.iter().all(|pid| !before.contains(pid)),
            "{name} is not back: {now:?}"
        );
        Ok(())
    })
}

fn kill_and_wait(cluster: &Cluster, node: &str, name: &str) -> Result<()> {
    let machine = cluster.machine(node);
    let before = process::find(&machine, name);
    process::kill_9(&machine, name)?;
    replaced(&machine, name, &before)
}

fn kill_a_pods_daemon(cluster: &Cluster, node: &str, name: &str) -> Result<()> {
    let pods = cluster.ready_pods("app=web")?;
    kill_and_wait(cluster, node, name)?;
    cluster.wait_ready(3, SOON)?;
    eventually(SOON, || cluster.web_answers())?;
    ensure!(cluster.ready_pods("app=web")? == pods, "the pods were replaced");
    Ok(())
}

pub(crate) fn containerd_killed_comes_back_and_pods_live_on(cluster: &Cluster) -> Result<()> {
    kill_a_pods_daemon(cluster, "node-2", "containerd")?;
    // A new pod starts there: CRI is back.
    starts_a_pod_on(cluster, "node-2")
}

pub(crate) fn kubelet_killed_comes_back_and_pods_live_on(cluster: &Cluster) -> Result<()> {
    kill_a_pods_daemon(cluster, "node-2", "skep-kubelet")?;
    starts_a_pod_on(cluster, "node-2")
}

fn starts_a_pod_on(cluster: &Cluster, node: &str) -> Result<()> {
    let spec = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: probe}}, spec: {{nodeName: {node}, terminationGracePeriodSeconds: 1, containers: [{{name: c, image: skep.local/demo-client:dev}}]}}}}"
    );
    cluster.apply(&spec)?;
    cluster.kubectl("wait --for=condition=Ready pod/probe --timeout=60s")?;
    cluster.kubectl("delete pod probe --timeout=60s").map(drop)
}

pub(crate) fn agent_killed_breaks_no_traffic(cluster: &Cluster) -> Result<()> {
    let (_, node) = cluster.ready_pods("app=client")?.pop().context("no client pod")?;
    let machine = cluster.machine(&node);
    let before = process::find(&machine, "skep-agent");
    process::kill_9(&machine, "skep-agent")?;
    // At once, while nothing of it runs: the programs go on.
    let answers = cluster.ask_web(10)?;
    ensure!(answers.len() == 10, "{} of 10 requests were answered without the agent", answers.len());
    replaced(&machine, "skep-agent", &before)?;
    eventually(SOON, || {
        ensure!(cluster.ready_pods("k8s-app=skep-agent")?.len() == 3);
        Ok(())
    })?;
    starts_a_pod_on(cluster, &node)
}

pub(crate) fn proxy_killed_answers_names_again(cluster: &Cluster) -> Result<()> {
    let (_, node) = cluster.ready_pods("app=client")?.pop().context("no client pod")?;
    kill_and_wait(cluster, &node, "skep-proxy")?;
    eventually(SOON, || cluster.web_answers())
}

pub(crate) fn control_plane_killed_keeps_every_object(cluster: &Cluster) -> Result<()> {
    cluster.kubectl("create configmap kept --from-literal=a=b")?;
    kill_and_wait(cluster, "node-1", "skep-controlplane")?;
    eventually(SOON, || {
        ensure!(cluster.kubectl("get configmap kept -o jsonpath={.data.a}")? == "b");
        Ok(())
    })?;
    cluster.kubectl("delete configmap kept")?;
    cluster.wait_ready(3, SOON)?;
    eventually(SOON, || cluster.web_answers())
}

pub(crate) fn a_node_off_leaves_the_workload_answering_and_converges_when_on(
    cluster: &Cluster,
) -> Result<()> {
    let (_, client) = cluster.ready_pods("app=client")?.pop().context("no client pod")?;
    let victim = ["node-3", "node-2"].into_iter().find(|node| *node != client).unwrap_or("node-2");
    cluster.power("off", victim)?;
    eventually(Duration::from_secs(90), || {
        let down = cluster.nodes_with_ready("Unknown")?;
        ensure!(down == [victim], "not Ready: {down:?}");
        Ok(())
    })?;
    eventually(SOON, || cluster.web_answers())?;
    ensure!(cluster.status(&[])?.refused()?.contains(victim), "status does not name the node that is off");
    cluster.power("on", victim)?;
    cluster.wait_ready(3, Duration::from_secs(90))?;
    eventually(Duration::from_secs(120), || {
        ensure!(cluster.ready_pods("app=web")?.len() == 3, "web pods: {:?}", cluster.ready_pods("app=web")?);
        ensure!(cluster.ready_pods("k8s-app=skep-agent")?.len() == 3);
        ensure!(cluster.ready_pods("k8s-app=kube-dns")?.len() == 3);
        Ok(())
    })?;
    eventually(SOON, || cluster.web_answers())?;
    starts_a_pod_on(cluster, victim)
}
