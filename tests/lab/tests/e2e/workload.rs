//! Deployments and nodes under a user's hands.

use std::time::Duration;

use anyhow::{Result, ensure};
use skep_test_lab::cluster::Cluster;
use skep_test_lab::command::eventually;

fn wait_for_web(cluster: &Cluster, replicas: usize) -> Result<()> {
    cluster.kubectl("rollout status deploy/web --timeout=90s")?;
    eventually(Duration::from_secs(60), || {
        let pods = cluster.ready_pods("app=web")?;
        ensure!(pods.len() == replicas, "web pods: {pods:?}");
        Ok(())
    })
}

pub(crate) fn scale_changes_the_number_of_answers(cluster: &Cluster) -> Result<()> {
    cluster.kubectl("scale deploy/web --replicas=5")?;
    wait_for_web(cluster, 5)?;
    eventually(Duration::from_secs(20), || {
        let mut answers = cluster.ask_web(60)?;
        answers.sort();
        answers.dedup();
        ensure!(answers.len() == 5, "{answers:?}");
        Ok(())
    })?;
    cluster.kubectl("scale deploy/web --replicas=3")?;
    wait_for_web(cluster, 3)
}

pub(crate) fn rollout_replaces_pods_and_undo_brings_them_back(cluster: &Cluster) -> Result<()> {
    let image = |cluster: &Cluster| {
        cluster.kubectl("get deploy web -o jsonpath={.spec.template.spec.containers[0].image}")
    };
    let before = image(cluster)?;
    cluster.kubectl("set image deploy/web web=skep.local/demo-web:next")?;
    wait_for_web(cluster, 3)?;
    let history = cluster.kubectl("rollout history deploy/web")?;
    ensure!(
        history.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count() >= 2,
        "{history}"
    );
    cluster.kubectl("rollout undo deploy/web")?;
    wait_for_web(cluster, 3)?;
    ensure!(image(cluster)? == before);
    cluster.kubectl("rollout restart deploy/web")?;
    wait_for_web(cluster, 3)?;
    cluster.web_answers()
}

pub(crate) fn cordon_and_drain_empty_a_node(cluster: &Cluster) -> Result<()> {
    cluster.kubectl("cordon node-2")?;
    ensure!(cluster.kubectl("get node node-2")?.contains("SchedulingDisabled"));
    cluster.kubectl("drain node-2 --ignore-daemonsets --delete-emptydir-data --timeout=90s")?;
    wait_for_web(cluster, 3)?;
    let pods = cluster.ready_pods("app=web")?;
    ensure!(pods.iter().all(|(_, node)| node != "node-2"), "{pods:?}");
    eventually(Duration::from_secs(30), || cluster.web_answers())?;
    cluster.kubectl("uncordon node-2").map(drop)
}

pub(crate) fn a_taint_keeps_pods_away(cluster: &Cluster) -> Result<()> {
    cluster.kubectl("taint node node-3 test=yes:NoSchedule")?;
    let image = "skep.local/demo-client:dev";
    cluster.kubectl(&format!("create deployment away --image={image} --replicas=4"))?;
    cluster.kubectl("rollout status deploy/away --timeout=60s")?;
    let pods = cluster.ready_pods("app=away")?;
    cluster.kubectl("taint node node-3 test=yes:NoSchedule-")?;
    cluster.kubectl("delete deployment away")?;
    ensure!(pods.len() == 4 && pods.iter().all(|(_, node)| node != "node-3"), "{pods:?}");
    Ok(())
}
