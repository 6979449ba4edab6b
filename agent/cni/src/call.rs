//! The call to the agent: a deadline for all of it, and patience while the agent restarts.

use std::{path::Path, time::Duration};

use serde_json::Value;
use skep_wire::{
    agent::{Attachment, GcRequest, StatusRequest, cni_client::CniClient, gc_request::Valid},
    socket,
};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Status, transport::Channel};

use crate::{
    error::CniError,
    request::{Environment, Network, Verb},
    result,
};

/// A pod may wait this long for an agent that restarts; runtimes give a plugin minutes.
const PATIENCE: Duration = Duration::from_secs(20);
/// STATUS and the like want an answer now.
const HASTE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(200);

/// Calls the agent and shapes its answer.
pub async fn call(
    verb: Verb,
    network: &Network,
    environment: &Environment,
) -> Result<Option<Value>, CniError> {
    let deadline = Instant::now() + if matches!(verb, Verb::Add | Verb::Del) { PATIENCE } else { HASTE };
    loop {
        let attempt = async { once(verb, network, environment, connect(network).await?).await };
        let failure = match timeout_at(deadline, attempt).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => return Err(unreachable(network, "no answer before the deadline")),
        };
        let may_pass =
            matches!(&failure, CniError::Unreachable { .. } | CniError::Refused(_, Code::Unavailable));
        if !may_pass || Instant::now() + RETRY >= deadline {
            return Err(failure);
        }
        sleep(RETRY).await;
    }
}

async fn connect(network: &Network) -> Result<CniClient<Channel>, CniError> {
    let channel = socket::connect(Path::new(&network.agent_socket)).await;
    channel.map(CniClient::new).map_err(|error| unreachable(network, &error.to_string()))
}

async fn once(
    verb: Verb,
    network: &Network,
    environment: &Environment,
    mut agent: CniClient<Channel>,
) -> Result<Option<Value>, CniError> {
    match verb {
        Verb::Add => {
            let attachment = attachment(environment)?;
            let netns = environment.required("CNI_NETNS")?;
            let reply = agent.add(attachment).await.map_err(refused)?.into_inner();
            return Ok(Some(result::added(network, netns, &reply)));
        }
        Verb::Del => drop(agent.del(attachment(environment)?).await.map_err(refused)?),
        Verb::Check => drop(agent.check(attachment(environment)?).await.map_err(refused)?),
        Verb::Gc => {
            let valid = network.valid_attachments.iter();
            let valid = valid
                .map(|one| Valid { container_id: one.container_id.clone(), ifname: one.ifname.clone() })
                .collect();
            agent.gc(GcRequest { valid }).await.map_err(refused)?;
        }
        Verb::Status => drop(agent.status(StatusRequest {}).await.map_err(refused)?),
        Verb::Version => return Ok(Some(result::versions())),
    }
    Ok(None)
}

fn attachment(environment: &Environment) -> Result<Attachment, CniError> {
    Ok(Attachment {
        container_id: environment.required("CNI_CONTAINERID")?.to_owned(),
        netns: environment.get("CNI_NETNS").to_owned(),
        ifname: environment.required("CNI_IFNAME")?.to_owned(),
        pod_namespace: environment.argument("K8S_POD_NAMESPACE").to_owned(),
        pod_name: environment.argument("K8S_POD_NAME").to_owned(),
        pod_uid: environment.argument("K8S_POD_UID").to_owned(),
    })
}

fn refused(status: Status) -> CniError {
    CniError::Refused(status.message().to_owned(), status.code())
}

fn unreachable(network: &Network, reason: &str) -> CniError {
    CniError::Unreachable { socket: network.agent_socket.clone(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attachment_needs_a_container_and_an_interface_but_no_namespace() {
        let environment = Environment::of(&[
            ("CNI_CONTAINERID", "c1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_UID=u"),
        ]);
        let found = attachment(&environment).unwrap();
        assert_eq!((found.netns.as_str(), found.pod_uid.as_str()), ("", "u"));
        assert!(attachment(&Environment::of(&[("CNI_IFNAME", "eth0")])).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_agent_is_waited_for_and_then_named() {
        let network = Network::read(
            br#"{"cniVersion":"1.0.0","type":"skep-cni","agentSocket":"/nonexistent/agent.sock"}"#.as_slice(),
        )
        .unwrap();
        let environment = Environment::of(&[("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")]);
        let started = Instant::now();
        let error = call(Verb::Del, &network, &environment).await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/agent.sock"), "{error}");
        assert!(started.elapsed() >= PATIENCE - RETRY * 2);
    }
}
