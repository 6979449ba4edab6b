//! Objects as a user changes them.

use anyhow::{Result, ensure};
use skep_test_lab::cluster::Cluster;
use skep_test_lab::command::run;
use std::time::Duration;

fn settings(color: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: things, labels: {{app: things}}}}, data: {{color: {color}}}}}"
    )
}

pub(crate) fn apply_diff_and_apply_again(cluster: &Cluster) -> Result<()> {
    ensure!(cluster.apply(&settings("red"))?.contains("created"));
    ensure!(cluster.apply(&settings("red"))?.contains("unchanged"));
    let same = cluster.with_manifest(&["diff"], &settings("red"))?;
    ensure!(same.code == 0, "{same:?}");
    let other = cluster.with_manifest(&["diff"], &settings("green"))?;
    ensure!(other.code == 1 && other.out.contains("+  color: green"), "{other:?}");
    ensure!(cluster.apply(&settings("green"))?.contains("configured"));
    ensure!(cluster.kubectl("get cm things -o jsonpath={.data.color}")? == "green");
    Ok(())
}

pub(crate) fn edit_label_annotate_and_patch_change_objects(cluster: &Cluster) -> Result<()> {
    cluster.apply(&settings("green"))?;
    let mut edit = cluster.kubectl_command(&["edit", "configmap", "things"]);
    run(edit.env("KUBE_EDITOR", "sed -i s/green/yellow/"), b"", Duration::from_secs(30))?.ok()?;
    cluster.kubectl("label configmap things tier=front")?;
    cluster.kubectl("annotate configmap things note=seen")?;
    cluster.kubectl(r#"patch configmap things --type=merge -p {"data":{"size":"big"}}"#)?;
    cluster.kubectl(
        r#"patch configmap things --type=json -p [{"op":"add","path":"/data/form","value":"round"}]"#,
    )?;
    cluster.kubectl(r#"patch deploy web -p {"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"MORE","value":"1"}]}]}}}}"#)?;
    cluster.kubectl("rollout status deploy/web --timeout=90s")?;
    let object = cluster.json("get configmap things")?;
    ensure!(
        object["data"] == serde_json::json!({"color": "yellow", "size": "big", "form": "round"}),
        "{object}"
    );
    ensure!(
        object["metadata"]["labels"]["tier"] == "front"
            && object["metadata"]["annotations"]["note"] == "seen"
    );
    let containers = &cluster.json("get deploy web")?["spec"]["template"]["spec"]["containers"];
    let names: Vec<&str> = containers[0]["env"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|env| env["name"].as_str())
        .collect();
    ensure!(
        names.contains(&"NODE_NAME") && names.contains(&"MORE"),
        "a strategic patch merges lists by name: {names:?}"
    );
    Ok(())
}

pub(crate) fn wait_and_delete_work_together(cluster: &Cluster) -> Result<()> {
    cluster.kubectl("create namespace passing")?;
    cluster.kubectl("-n passing create configmap one --from-literal=a=b")?;
    cluster.kubectl("-n passing create deployment d --image=skep.local/demo-client:dev")?;
    cluster.kubectl("-n passing wait --for=condition=Available deploy/d --timeout=60s")?;
    cluster.kubectl("delete namespace passing --timeout=90s")?;
    ensure!(cluster.try_kubectl("get namespace passing")?.refused()?.contains("NotFound"));
    cluster.kubectl("delete configmap things --ignore-not-found").map(drop)
}

pub(crate) fn explain_and_can_i_answer(cluster: &Cluster) -> Result<()> {
    let text = cluster.kubectl("explain pod.spec.containers")?;
    ensure!(text.contains("image") && text.contains("FIELDS:"), "{text}");
    ensure!(cluster.kubectl("auth can-i create deployments")?.trim() == "yes");
    let other = cluster.try_kubectl("auth can-i delete nodes --as=system:serviceaccount:default:default")?;
    ensure!(other.out.trim() == "no", "{other:?}");
    Ok(())
}
