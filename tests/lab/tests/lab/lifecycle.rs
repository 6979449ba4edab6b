//! Up and down: again, half way, with etcd, and nothing left.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use skep_test_lab::cluster::Cluster;
use skep_test_lab::command::{eventually, run};
use skep_test_lab::process;

pub(crate) fn a_second_up_adopts_the_cluster_within_seconds(cluster: &Cluster) -> Result<()> {
    let before = cluster.ready_pods("app=web")?;
    let start = Instant::now();
    let printed = cluster.up(&[])?;
    ensure!(start.elapsed() < Duration::from_secs(15), "took {:?}", start.elapsed());
    ensure!(printed.contains("node-3") && printed.contains(" on node-"), "{printed}");
    ensure!(cluster.ready_pods("app=web")? == before, "the pods were replaced");
    Ok(())
}

pub(crate) fn up_refuses_what_differs_from_the_running_cluster(cluster: &Cluster) -> Result<()> {
    let limit = Duration::from_secs(10);
    let said = run(&mut cluster.up_command(&["--store", "etcd"]), b"", limit)?.refused()?;
    ensure!(said.contains("another store") && said.contains("skep down"), "{said}");
    let said = run(&mut cluster.up_command(&["--nodes", "1"]), b"", limit)?.refused()?;
    ensure!(said.contains("node off"), "{said}");
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let other = Cluster::on_port("skepbusy", port);
    let said = run(&mut other.up_command(&[]), b"", limit)?.refused()?;
    ensure!(said.contains(&port.to_string()) && said.contains("--api-port"), "{said}");
    ensure!(!other.dir().exists(), "a refused bring-up made {}", other.dir().display());
    Ok(())
}

pub(crate) fn up_repairs_a_node_that_is_off(cluster: &Cluster) -> Result<()> {
    cluster.power("off", "node-2")?;
    cluster.up(&[])?;
    cluster.wait_ready(3, Duration::from_secs(60))
}

pub(crate) fn down_after_a_crash_half_way_leaves_nothing(_: &Cluster) -> Result<()> {
    let cluster = Cluster::new("skephalf")?;
    for pause in [60, 400, 2500] {
        let mut up =
            cluster.up_command(&["--nodes", "2"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_millis(pause));
        up.kill()?;
        up.wait()?;
        cluster.down()?;
        nothing_is_left(&cluster, "skephalf")?;
    }
    Ok(())
}

pub(crate) fn an_etcd_cluster_survives_its_etcd_and_goes_down(_: &Cluster) -> Result<()> {
    let cluster = Cluster::new("skepetcd")?;
    cluster.down()?;
    let result = survive_etcd(&cluster);
    if result.is_err() {
        cluster.explain();
    }
    cluster.down()?;
    result?;
    nothing_is_left(&cluster, "skepetcd")
}

fn survive_etcd(cluster: &Cluster) -> Result<()> {
    cluster.up(&["--store", "etcd", "--nodes", "2"])?;
    cluster.kubectl("create configmap kept --from-literal=a=b")?;
    process::kill_9(&cluster.machine("node-1"), "etcd")?;
    eventually(Duration::from_secs(60), || {
        ensure!(cluster.kubectl("get configmap kept -o jsonpath={.data.a}")? == "b");
        cluster.kubectl("annotate configmap kept again=yes --overwrite").map(drop)
    })?;
    cluster.wait_ready(2, Duration::from_secs(60))
}

pub(crate) fn down_leaves_nothing(cluster: &Cluster) -> Result<()> {
    cluster.down()?;
    nothing_is_left(cluster, "skeplab")?;
    ensure!(cluster.down()?.contains("nothing to take down"));
    Ok(())
}

fn nothing_is_left(cluster: &Cluster, prefix: &str) -> Result<()> {
    ensure!(!cluster.dir().exists(), "{} is left", cluster.dir().display());
    let name = format!("{prefix}-");
    let namespaces = run(Command::new("ip").arg("netns"), b"", Duration::from_secs(5))?.ok()?;
    ensure!(!namespaces.contains(&name), "namespaces are left: {namespaces}");
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let of_ours: Vec<&str> = mounts.lines().filter(|line| line.contains(&format!("/{prefix}"))).collect();
    ensure!(of_ours.is_empty(), "mounts are left: {of_ours:?}");
    let cgroups = run(
        Command::new("find").args(["/sys/fs/cgroup", "-maxdepth", "2", "-name", &format!("{name}*")]),
        b"",
        Duration::from_secs(5),
    )?;
    ensure!(cgroups.out.is_empty(), "cgroups are left: {}", cgroups.out);
    let pins = std::fs::read_dir("/sys/fs/bpf").map(Iterator::count).unwrap_or_default();
    ensure!(pins == 0 || !std::path::Path::new("/sys/fs/bpf/skep").exists(), "pins are left on the host");
    Ok(())
}
