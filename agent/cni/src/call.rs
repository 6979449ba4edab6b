//! The call to the agent, with a deadline, tried again while the agent restarts.

use std::{
    future::Future,
    path::Path,
    time::{Duration, Instant},
};

use skep_wire::{
    agent::{Attachment, GcRequest, StatusRequest, cni_client::CniClient, gc_request::Valid},
    socket,
};
use tonic::{Request, Status, transport::Channel};

use crate::{
    config::{Environment, NetConf, Verb},
    failure::Failure,
    result,
};

/// How long a verb may take: an upgrade of the agent fits in, the runtime's own patience is longer.
const PATIENCE: Duration = Duration::from_secs(45);
/// How long a deletion waits for an agent that is down.
const DELETE_PATIENCE: Duration = Duration::from_secs(10);
/// Wait between two tries.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Serves a verb.
pub(crate) async fn run(environment: &Environment, conf: &NetConf) -> Result<Option<String>, Failure> {
    let socket = conf.socket.as_path();
    match environment.verb {
        Verb::Add => {
            let call = |mut client: Client, left| async move {
                client.add(timed(attachment(environment), left)).await.map(tonic::Response::into_inner)
            };
            let reply = retry(socket, PATIENCE, call).await?;
            Ok(Some(result::add(&reply, environment, &conf.version)))
        }
        Verb::Del => {
            let call = |mut client: Client, left| async move {
                client.del(timed(attachment(environment), left)).await.map(|_| ())
            };
            leave_to_the_agent(retry(socket, DELETE_PATIENCE, call).await)
        }
        Verb::Check => {
            let call = |mut client: Client, left| async move {
                client.check(timed(attachment(environment), left)).await.map(|_| ())
            };
            retry(socket, PATIENCE, call).await.map(|()| None)
        }
        Verb::Gc => {
            let call = |mut client: Client, left| async move {
                client.gc(timed(valid(conf), left)).await.map(|_| ())
            };
            retry(socket, PATIENCE, call).await.map(|()| None)
        }
        // A question about now: no second try.
        Verb::Status => {
            let mut client = CniClient::new(socket::connect(socket).await.map_err(Failure::Unreachable)?);
            let asked = client.status(timed(StatusRequest {}, PATIENCE)).await;
            asked.map(|_| None).map_err(|status| Failure::Refused(Box::new(status)))
        }
        Verb::Version => Ok(Some(result::versions(Some(conf)))),
    }
}

/// The agent releases whatever has lost its namespace as soon as it is back, so a deletion that does not reach it leaks
/// nothing, and pods can be removed from a node whose agent is gone for good.
fn leave_to_the_agent(outcome: Result<(), Failure>) -> Result<Option<String>, Failure> {
    match outcome {
        Err(failure) if failure.is_transient() => Ok(None),
        outcome => outcome.map(|()| None),
    }
}

type Client = CniClient<Channel>;

fn timed<T>(message: T, left: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(left);
    request
}

async fn retry<T, F, C>(path: &Path, patience: Duration, call: F) -> Result<T, Failure>
where
    F: Fn(Client, Duration) -> C,
    C: Future<Output = Result<T, Status>>,
{
    let deadline = Instant::now() + patience;
    let mut pause = PAUSE.0;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let failure = match tokio::time::timeout(left, attempt(path, left, &call)).await {
            Ok(Ok(reply)) => return Ok(reply),
            Ok(Err(failure)) => failure,
            Err(_) => return Err(Failure::TimedOut(patience.as_secs())),
        };
        if !failure.is_transient() || Instant::now() + pause >= deadline {
            return Err(failure);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn attempt<T, F, C>(path: &Path, left: Duration, call: &F) -> Result<T, Failure>
where
    F: Fn(Client, Duration) -> C,
    C: Future<Output = Result<T, Status>>,
{
    let channel = socket::connect(path).await.map_err(Failure::Unreachable)?;
    call(CniClient::new(channel), left).await.map_err(|status| Failure::Refused(Box::new(status)))
}

fn attachment(environment: &Environment) -> Attachment {
    Attachment {
        container_id: environment.container_id.clone(),
        netns: environment.netns.clone(),
        ifname: environment.ifname.clone(),
        pod_namespace: environment.pod_namespace.clone(),
        pod_name: environment.pod_name.clone(),
        pod_uid: environment.pod_uid.clone(),
    }
}

fn valid(conf: &NetConf) -> GcRequest {
    let valid = conf
        .valid
        .iter()
        .map(|kept| Valid { container_id: kept.container_id.clone(), ifname: kept.ifname.clone() });
    GcRequest { valid: valid.collect() }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use skep_wire::agent::{
        AddReply, CheckReply, DelReply, GcReply, StatusReply,
        cni_server::{Cni, CniServer},
    };
    use tonic::Response;

    use super::*;

    /// An agent that is not ready for the first calls.
    #[derive(Clone, Default)]
    struct Agent {
        refusals: Arc<AtomicU32>,
        calls: Arc<AtomicU32>,
    }

    impl Agent {
        fn answer<T: Default>(&self) -> Result<Response<T>, Status> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            let left = self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
            left.map_or_else(|_| Ok(Response::new(T::default())), |_| Err(Status::unavailable("starting")))
        }
    }

    #[tonic::async_trait]
    impl Cni for Agent {
        async fn add(&self, _: Request<Attachment>) -> Result<Response<AddReply>, Status> {
            self.answer()
        }
        async fn del(&self, _: Request<Attachment>) -> Result<Response<DelReply>, Status> {
            self.answer()
        }
        async fn check(&self, _: Request<Attachment>) -> Result<Response<CheckReply>, Status> {
            Err(Status::not_found("no such attachment"))
        }
        async fn gc(&self, request: Request<GcRequest>) -> Result<Response<GcReply>, Status> {
            assert_eq!(request.into_inner().valid.len(), 1);
            self.answer()
        }
        async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
            self.answer()
        }
    }

    fn environment(verb: Verb) -> Environment {
        Environment {
            verb,
            container_id: "c".into(),
            netns: "/run/netns/x".into(),
            ifname: "eth0".into(),
            pod_namespace: "default".into(),
            pod_name: "web".into(),
            pod_uid: String::new(),
        }
    }

    fn conf(socket: &Path) -> NetConf {
        let text =
            r#"{"cniVersion":"1.1.0","cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]}"#;
        NetConf { socket: socket.into(), ..NetConf::parse(text.as_bytes()).unwrap() }
    }

    fn serve(socket: &Path, agent: Agent) -> tokio::task::JoinHandle<()> {
        let connections = socket::trusted_connections(socket::listen(socket).unwrap());
        tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(CniServer::new(agent));
            server.serve_with_incoming(connections).await.unwrap();
        })
    }

    #[tokio::test]
    async fn an_agent_that_starts_late_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let agent = Agent { refusals: Arc::new(AtomicU32::new(2)), ..Agent::default() };
        let (environment, conf) = (environment(Verb::Add), conf(&socket));
        let asked = run(&environment, &conf);
        let served = async {
            tokio::task::yield_now().await;
            serve(&socket, agent.clone()).abort_handle()
        };
        let (answer, server) = tokio::join!(asked, served);
        assert!(answer.unwrap().unwrap().contains("cniVersion"));
        assert_eq!(agent.calls.load(Ordering::Relaxed), 3);
        server.abort();
    }

    #[tokio::test]
    async fn a_plain_refusal_is_final() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let server = serve(&socket, Agent::default());
        let failure = run(&environment(Verb::Check), &conf(&socket)).await.unwrap_err();
        assert_eq!(failure.code(), 3);
        assert_eq!(run(&environment(Verb::Gc), &conf(&socket)).await.unwrap(), None);
        server.abort();
    }

    #[tokio::test]
    async fn a_deletion_succeeds_when_the_agent_is_gone_and_a_question_does_not() {
        let nobody = conf(Path::new("/nonexistent/agent.sock"));
        let short = Duration::from_millis(1);
        let call = |mut client: Client, left| async move {
            client.del(timed(Attachment::default(), left)).await.map(|_| ())
        };
        let outcome = retry(&nobody.socket, short, call).await;
        assert_eq!(leave_to_the_agent(outcome).unwrap(), None);
        assert_eq!(run(&environment(Verb::Status), &nobody).await.unwrap_err().code(), 11);
    }
}
