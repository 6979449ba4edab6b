//! Waiting for a cluster: conditions with a deadline, and what is missing when it passes.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep};

use crate::terminal::{Steps, explain};

const PAUSE: Duration = Duration::from_millis(100);

/// How a condition stands.
pub(crate) enum Standing {
    /// It holds.
    Holds,
    /// Not yet; what is missing.
    Missing(String),
}

/// Waits until `look` says that it holds.
pub(crate) async fn until<F>(
    steps: &mut Steps,
    patience: Duration,
    what: &str,
    hint: &str,
    mut look: F,
) -> Result<()>
where
    F: AsyncFnMut() -> Result<Standing>,
{
    let deadline = Instant::now() + patience;
    loop {
        let missing = match look().await {
            Ok(Standing::Holds) => return Ok(()),
            Ok(Standing::Missing(what)) => what,
            Err(error) => explain(&error),
        };
        steps.detail(&missing);
        if Instant::now() > deadline {
            bail!("{what} took longer than {} s: {missing}. {hint}", patience.as_secs());
        }
        sleep(PAUSE).await;
    }
}

/// The API server says it is ready.
pub(crate) async fn api_ready(client: &Client) -> Result<Standing> {
    let request = http_get("/readyz")?;
    let text = client.request_text(request).await?;
    Ok(if text.trim() == "ok" { Standing::Holds } else { Standing::Missing(text) })
}

/// A GET request for a path of the API server.
pub(crate) fn http_get(path: &str) -> Result<http::Request<Vec<u8>>> {
    http::Request::get(path).body(Vec::new()).context("not a path")
}

/// So many nodes are Ready.
pub(crate) async fn nodes_ready(client: &Client, wanted: usize) -> Result<Standing> {
    let nodes: Api<Node> = Api::all(client.clone());
    let nodes = nodes.list(&ListParams::default()).await?.items;
    let ready = nodes.iter().filter(|node| node_is_ready(node)).count();
    Ok(match ready >= wanted {
        true => Standing::Holds,
        false => Standing::Missing(format!("{ready} of {wanted} nodes are Ready")),
    })
}

/// Whether a node is Ready.
pub(crate) fn node_is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether a pod is Ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The DaemonSet runs its newest pods on so many nodes.
pub(crate) async fn daemon_set_ready(client: &Client, name: &str, wanted: i32) -> Result<Standing> {
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), "kube-system");
    let set = sets.get(name).await?;
    let status = set.status.unwrap_or_default();
    let current = status.observed_generation >= set.metadata.generation;
    let updated = status.updated_number_scheduled.unwrap_or_default();
    let ready = status.number_ready.min(updated);
    Ok(match current && ready >= wanted {
        true => Standing::Holds,
        false => Standing::Missing(format!("{ready} of {wanted} {name} pods are ready")),
    })
}

/// The Deployment has rolled out.
pub(crate) async fn deployment_ready(client: &Client, namespace: &str, name: &str) -> Result<Standing> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let deployment = deployments.get(name).await?;
    let wanted = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1);
    let status = deployment.status.unwrap_or_default();
    let current = status.observed_generation >= deployment.metadata.generation;
    let (updated, available) =
        (status.updated_replicas.unwrap_or_default(), status.available_replicas.unwrap_or_default());
    Ok(match current && updated.min(available) >= wanted {
        true => Standing::Holds,
        false => Standing::Missing(format!("{available} of {wanted} {name} pods are available")),
    })
}
