//! The demo: deployed once, then asked through its Service from a pod.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, ListParams};
use kube::{Api, Client};
use tokio::io::AsyncReadExt;

use super::objects::{Existing, apply};
use crate::chart::documents;

const MANIFESTS: &str = include_str!("../../../../tests/e2e/demo.yaml");
/// How often the Service is asked.
const REQUESTS: usize = 12;
/// How long the demo may take to answer.
const SETTLING: Duration = Duration::from_secs(60);

/// Deploys the demo unless it is there: a user who scaled it keeps that.
pub(crate) async fn deploy(client: &Client) -> Result<()> {
    apply(client, &documents(MANIFESTS)?, Existing::Keep).await
}

/// Asks the web Service from the client pod, several times: each answer and how often it came.
///
/// A node that has just been booted again is still reported as it was before: what its pods are said to be may be wrong
/// until its kubelet speaks, so this is tried for a while.
pub(crate) async fn ask(client: &Client) -> Result<BTreeMap<String, usize>> {
    let deadline = Instant::now() + SETTLING;
    loop {
        match ask_once(client).await {
            Err(_not_yet) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            outcome => return outcome,
        }
    }
}

async fn ask_once(client: &Client) -> Result<BTreeMap<String, usize>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let found = pods.list(&ListParams::default().labels("app=client")).await?;
    let ready = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none() && super::wait::is_ready(pod);
    let pod = found.items.iter().find(ready).context("no client pod is running")?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let script =
        format!("i=0; while [ $i -lt {REQUESTS} ]; do timeout 3 wget -qO- http://web; i=$((i+1)); done");
    let text = execute(&pods, name, &script).await?;
    let mut answers = BTreeMap::new();
    for line in text.lines() {
        *answers.entry(line.to_owned()).or_default() += 1;
    }
    if answers.is_empty() {
        bail!("the Service gave no answer to pod {name}");
    }
    Ok(answers)
}

async fn execute(pods: &Api<Pod>, name: &str, script: &str) -> Result<String> {
    let mut process = pods.exec(name, ["sh", "-c", script], &AttachParams::default().stderr(false)).await?;
    let mut text = String::new();
    if let Some(mut output) = process.stdout() {
        output.read_to_string(&mut text).await?;
    }
    process.join().await?;
    Ok(text)
}
