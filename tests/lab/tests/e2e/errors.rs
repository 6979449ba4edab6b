//! Mistakes, and the words a user knows for them.

use std::time::Duration;

use anyhow::{Result, ensure};
use skep_test_lab::cluster::Cluster;
use skep_test_lab::command::eventually;

fn complaint(cluster: &Cluster, manifest: &str) -> Result<String> {
    cluster.with_manifest(&["apply"], manifest)?.refused()
}

pub(crate) fn a_wrong_type_an_unknown_and_a_missing_field_are_refused(cluster: &Cluster) -> Result<()> {
    let deployment = |spec: &str| {
        format!("{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: bad}}, spec: {spec}}}")
    };
    let template = "template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}";
    let wrong = complaint(
        cluster,
        &deployment(&format!("{{replicas: many, selector: {{matchLabels: {{a: b}}}}, {template}}}")),
    )?;
    ensure!(wrong.contains("replicas"), "{wrong}");
    let unknown = complaint(
        cluster,
        &deployment(&format!("{{replica: 2, selector: {{matchLabels: {{a: b}}}}, {template}}}")),
    )?;
    // Older kubectl checks by itself and names the field without its parent.
    let named = ["unknown field \"spec.replica\"", "unknown field \"replica\""]
        .iter()
        .any(|words| unknown.contains(words));
    ensure!(named, "{unknown}");
    let missing = complaint(cluster, &deployment(&format!("{{{template}}}")))?;
    let named = missing.contains("spec.selector") && missing.contains("Required value");
    ensure!(named || missing.contains("missing required field \"selector\""), "{missing}");
    Ok(())
}

pub(crate) fn a_duplicate_port_is_refused(cluster: &Cluster) -> Result<()> {
    let service = "{apiVersion: v1, kind: Service, metadata: {name: bad}, spec: {ports: [{name: a, port: 80}, {name: b, port: 80}]}}";
    let said = complaint(cluster, service)?;
    ensure!(said.contains("spec.ports[1]") && said.contains("Duplicate value"), "{said}");
    Ok(())
}

pub(crate) fn an_image_that_is_not_there_is_said_so(cluster: &Cluster) -> Result<()> {
    cluster.kubectl("run x --image=nope.invalid/nope")?;
    eventually(Duration::from_secs(60), || {
        let table = cluster.kubectl("get pod x")?;
        ensure!(table.contains("ErrImagePull") || table.contains("ImagePullBackOff"), "{table}");
        let described = cluster.kubectl("describe pod x")?;
        ensure!(described.contains("Failed"), "{described}");
        Ok(())
    })?;
    cluster.kubectl("delete pod x").map(drop)
}

pub(crate) fn an_unschedulable_pod_says_why(cluster: &Cluster) -> Result<()> {
    cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: huge}, spec: {containers: [{name: c, image: skep.local/demo-client:dev, resources: {requests: {cpu: \"100\"}}}]}}",
    )?;
    eventually(Duration::from_secs(30), || {
        let described = cluster.kubectl("describe pod huge")?;
        ensure!(
            described.contains("FailedScheduling") && described.contains("Insufficient cpu"),
            "{described}"
        );
        Ok(())
    })?;
    cluster.kubectl("delete pod huge").map(drop)
}
