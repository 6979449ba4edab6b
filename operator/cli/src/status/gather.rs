//! What the API server knows: its checks, nodes, our pods, and what each agent published.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, ResourceExt};

use crate::agent::{Answers, ask_agents};
use crate::up::wait::{http_get, node_is_ready};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The answers; a question that failed carries its reason.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Lines of `/readyz?verbose`.
    pub(crate) checks: Result<String, String>,
    /// The server's version.
    pub(crate) version: Result<String, String>,
    /// All nodes.
    pub(crate) nodes: Result<Vec<Node>, String>,
    /// The pods of kube-system.
    pub(crate) pods: Result<Vec<Pod>, String>,
    /// The agents' objects.
    pub(crate) agents: Result<Vec<DynamicObject>, String>,
    /// What each agent says of Service load balancing.
    pub(crate) balancing: Answers,
}

/// Asks everything at once.
pub(crate) async fn gather(client: &Client) -> Facts {
    let nodes: Api<Node> = Api::all(client.clone());
    let pods: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    let gvk = GroupVersionKind::gvk("skep.dev", "v1alpha1", "NodeEndpoints");
    let resource = ApiResource::from_gvk_with_plural(&gvk, "nodeendpoints");
    let agents: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let all = ListParams::default();
    let (checks, version, nodes, pods, agents) = tokio::join!(
        answer(checks(client)),
        answer(async { client.apiserver_version().await }),
        answer(nodes.list(&all)),
        answer(pods.list(&all)),
        answer(agents.list(&all)),
    );
    let (nodes, pods) = (nodes.map(|list| list.items), pods.map(|list| list.items));
    Facts {
        checks,
        version: version.map(|version| version.git_version),
        balancing: balancing(client, &nodes, &pods).await,
        nodes,
        pods,
        agents: agents.map(|list| list.items),
    }
}

/// Asks the agents' pods themselves: what changes with every connection is no part of an object.
async fn balancing(
    client: &Client,
    nodes: &Result<Vec<Node>, String>,
    pods: &Result<Vec<Pod>, String>,
) -> Answers {
    let (Ok(nodes), Ok(pods)) = (nodes, pods) else { return Answers::new() };
    let is_agent = |pod: &&Pod| pod.labels().get("k8s-app").is_some_and(|app| app == "skep-agent");
    let agents: Vec<Pod> = pods.iter().filter(is_agent).cloned().collect();
    // A node that is off would keep the question waiting, and is a problem of its own.
    let ready = nodes.iter().filter(|node| node_is_ready(node)).map(ResourceExt::name_any).collect();
    ask_agents(client, ready, &agents, &["health"]).await
}

/// The verbose form comes as text also when a check fails, with the status 500.
async fn checks(client: &Client) -> kube::Result<String> {
    let request = http_get("/readyz?verbose").map_err(|error| kube::Error::Service(error.into()))?;
    let response = client.send(request.map(kube::client::Body::from)).await?;
    let bytes = response.into_body().collect_bytes().await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn answer<T>(question: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, question).await {
        Ok(answer) => answer.map_err(|error| describe(&error)),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// The whole chain in one line: the outermost words of a transport error say little.
fn describe(error: &dyn std::error::Error) -> String {
    let mut words = vec![error.to_string()];
    let mut inner = error.source();
    while let Some(error) = inner {
        let text = error.to_string();
        if !words.iter().any(|known| known.contains(&text)) {
            words.push(text);
        }
        inner = error.source();
    }
    words.join(": ")
}
