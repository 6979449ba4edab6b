//! Asking agents: `skep-agent show` run in the agent's pod of a node, as `kubectl exec` would, so that
//! nothing is needed but a kubeconfig that may exec there.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, ListParams};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use thiserror::Error;
use tokio::io::AsyncReadExt;

use crate::up::wait::is_ready;

/// How long an agent may take; a dump of a full connection table is large.
const PATIENCE: Duration = Duration::from_secs(20);
/// The program in the agent's image.
const PROGRAM: &str = "/usr/bin/skep-agent";
/// The pods that are agents.
const LABEL: &str = "k8s-app=skep-agent";

/// Why an agent gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum AgentError {
    /// The node is not in the cluster.
    #[error("there is no node {0:?}: `kubectl get nodes` lists them")]
    NoNode(String),
    /// No agent runs there.
    #[error("no agent runs on {0}: `kubectl -n kube-system describe ds skep-agent` says why")]
    NoAgent(String),
    /// Its pod is there, but not ready.
    #[error("the agent on {node} is not ready: `kubectl -n {namespace} describe pod {pod}` says why")]
    NotReady {
        /// The node.
        node: String,
        /// The pod's namespace.
        namespace: String,
        /// The pod.
        pod: String,
    },
    /// The agent does not know the question.
    #[error(
        "the agent on {node} is too old for `show {question}`: bring it to this skep's version with `skep up` or the chart"
    )]
    TooOld {
        /// The node.
        node: String,
        /// The question.
        question: String,
    },
    /// The API server or the kubelet did not let us in.
    #[error(
        "cannot run a command in the agent's pod on {node}: {reason}; may this kubeconfig's user create pods/exec in {namespace}?"
    )]
    Exec {
        /// The node.
        node: String,
        /// The pod's namespace.
        namespace: String,
        /// What was said.
        reason: String,
    },
    /// It answered with an error or with nonsense.
    #[error("the agent on {node} answers: {said}; `kubectl -n kube-system logs ds/skep-agent` may say more")]
    Failed {
        /// The node.
        node: String,
        /// What it said.
        said: String,
    },
}

/// What came back from each node asked.
pub(crate) type Answers = BTreeMap<String, Result<Value, AgentError>>;

/// Asks the agents of all nodes, or of one: `skep-agent show QUESTION... -o json`.
pub(crate) async fn ask(client: &Client, node: Option<&str>, question: &[&str]) -> anyhow::Result<Answers> {
    let nodes: Api<Node> = Api::all(client.clone());
    let known = nodes.list(&ListParams::default()).await?.items.iter().map(ResourceExt::name_any).collect();
    let names = choose(known, node)?;
    let pods: Api<Pod> = Api::all(client.clone());
    let agents = pods.list(&ListParams::default().labels(LABEL)).await?.items;
    Ok(ask_agents(client, names, &agents, question).await)
}

/// The same with the nodes and the agents' pods at hand.
pub(crate) async fn ask_agents(
    client: &Client,
    nodes: Vec<String>,
    agents: &[Pod],
    question: &[&str],
) -> Answers {
    let asked = nodes.into_iter().map(|node| async move {
        let answer = match agent_of(&node, agents) {
            Ok(pod) => ask_one(client, &node, pod, question).await,
            Err(error) => Err(error),
        };
        (node, answer)
    });
    join_all(asked).await.into_iter().collect()
}

fn choose(known: Vec<String>, wanted: Option<&str>) -> Result<Vec<String>, AgentError> {
    match wanted {
        None => Ok(known),
        Some(name) if known.iter().any(|node| node == name) => Ok(vec![name.to_owned()]),
        Some(name) => Err(AgentError::NoNode(name.to_owned())),
    }
}

/// The agent's pod of a node: the ready one while an older one is going.
fn agent_of<'a>(node: &str, agents: &'a [Pod]) -> Result<&'a Pod, AgentError> {
    let here = |pod: &&Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
    let mut found = agents.iter().filter(here).peekable();
    let Some(first) = found.peek().copied() else { return Err(AgentError::NoAgent(node.to_owned())) };
    found.find(|pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none()).ok_or_else(|| {
        AgentError::NotReady {
            node: node.to_owned(),
            namespace: first.namespace().unwrap_or_default(),
            pod: first.name_any(),
        }
    })
}

async fn ask_one(client: &Client, node: &str, pod: &Pod, question: &[&str]) -> Result<Value, AgentError> {
    let namespace = pod.namespace().unwrap_or_default();
    let command = [&[PROGRAM, "show"], question, &["-o", "json"]].concat();
    let answer = tokio::time::timeout(PATIENCE, execute(client, &namespace, &pod.name_any(), command)).await;
    let denied =
        |reason: String| AgentError::Exec { node: node.to_owned(), namespace: namespace.clone(), reason };
    let (out, err, status) = match answer {
        Ok(answer) => answer.map_err(|error| denied(error.to_string()))?,
        Err(_) => return Err(denied(format!("no answer within {} s", PATIENCE.as_secs()))),
    };
    judge(node, question, &out, &err, status.as_ref())
}

async fn execute(
    client: &Client,
    namespace: &str,
    pod: &str,
    command: Vec<&str>,
) -> kube::Result<(String, String, Option<Status>)> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut process = pods.exec(pod, command, &AttachParams::default()).await?;
    let status = process.take_status();
    let (mut out, mut err) = (String::new(), String::new());
    let (stdout, stderr) = (process.stdout(), process.stderr());
    let read_out = async {
        if let Some(mut pipe) = stdout {
            // What was read before an error is what there is to judge.
            let _ = pipe.read_to_string(&mut out).await;
        }
    };
    let read_err = async {
        if let Some(mut pipe) = stderr {
            let _ = pipe.read_to_string(&mut err).await;
        }
    };
    tokio::join!(read_out, read_err);
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    Ok((out, err, status))
}

/// The exit code is the judge, not the words on standard error: an agent may warn and still answer.
fn judge(
    node: &str,
    question: &[&str],
    out: &str,
    err: &str,
    status: Option<&Status>,
) -> Result<Value, AgentError> {
    let node = node.to_owned();
    if status.is_some_and(|status| status.status.as_deref() == Some("Failure")) {
        let unknown =
            ["unrecognized subcommand", "unexpected argument", "invalid value", "no such route", "404"];
        if unknown.iter().any(|words| err.contains(words)) {
            let question = question.first().copied().unwrap_or_default().to_owned();
            return Err(AgentError::TooOld { node, question });
        }
        let said = [err, out].into_iter().map(str::trim).find(|text| !text.is_empty());
        let message = status.and_then(|status| status.message.clone()).unwrap_or_default();
        return Err(AgentError::Failed { node, said: said.map_or(message, str::to_owned) });
    }
    serde_json::from_str(out)
        .map_err(|error| AgentError::Failed { node, said: format!("something that is no JSON ({error})") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn agent(name: &str, node: &str, ready: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "kube-system"},
            "spec": {"nodeName": node, "containers": []},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
        .unwrap()
    }

    fn failure() -> Status {
        Status { status: Some("Failure".into()), message: Some("exit code 2".into()), ..Status::default() }
    }

    #[test]
    fn an_unknown_node_is_named_with_the_way_to_the_known_ones() {
        let error = choose(vec!["node-1".into()], Some("node-9")).unwrap_err().to_string();
        assert!(error.contains("node-9") && error.contains("kubectl get nodes"), "{error}");
    }

    #[test]
    fn the_ready_agent_is_asked_while_an_older_one_goes() {
        let agents = [agent("old", "node-1", "False"), agent("new", "node-1", "True")];
        assert_eq!(agent_of("node-1", &agents).unwrap().name_any(), "new");
        let error = agent_of("node-1", &agents[..1]).unwrap_err().to_string();
        assert!(error.contains("not ready") && error.contains("describe pod old"), "{error}");
        assert_eq!(agent_of("node-2", &agents).unwrap_err(), AgentError::NoAgent("node-2".into()));
    }

    #[test]
    fn an_agent_that_does_not_know_the_question_is_too_old() {
        let said = "error: unrecognized subcommand 'show'\n";
        let error = judge("node-1", &["lb"], "", said, Some(&failure())).unwrap_err();
        assert!(error.to_string().contains("too old for `show lb`"), "{error}");
    }

    #[test]
    fn a_warning_beside_an_answer_is_no_error() {
        assert_eq!(judge("n", &["lb"], "[]", "warning: slow\n", None).unwrap(), json!([]));
    }

    #[test]
    fn an_agents_own_words_are_handed_on() {
        let error = judge("n", &["lb"], "", "error: the admin port is closed", Some(&failure())).unwrap_err();
        assert!(error.to_string().contains("the admin port is closed"), "{error}");
        assert!(judge("n", &["lb"], "<html>", "", None).unwrap_err().to_string().contains("no JSON"));
    }
}
