//! Exec, attach and port-forward requests.

use axum::{
    body::Body,
    extract::{Path, State},
    http::{Request, Response},
    response::IntoResponse,
};
use skep_wire::cri::v1;

use super::{
    query::Query,
    routes::{Api, Refusal},
};
use crate::stream::{
    channels::{self, Streams},
    upgrade::{self, Session},
};

type Named = (String, String, String);
type NamedByUid = (String, String, String, String);

pub(crate) async fn exec_by_uid(
    state: State<Api>,
    Path((namespace, pod, _uid, container)): Path<NamedByUid>,
    request: Request<Body>,
) -> Response<Body> {
    exec(state, Path((namespace, pod, container)), request).await
}

pub(crate) async fn exec(
    State(api): State<Api>,
    Path((namespace, pod, container)): Path<Named>,
    request: Request<Body>,
) -> Response<Body> {
    let query = Query::parse(request.uri().query());
    match exec_session(&api, &namespace, &pod, &container, &query).await {
        Ok(session) => upgrade::serve(request, session).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn streams(query: &Query) -> Streams {
    Streams {
        stdin: query.flag(&["input", "stdin"]),
        stdout: query.flag(&["output", "stdout"]),
        stderr: query.flag(&["error", "stderr"]),
        tty: query.flag(&["tty"]),
    }
}

async fn exec_session(
    api: &Api,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &Query,
) -> Result<Session, Refusal> {
    let streams = streams(query);
    let command: Vec<String> = query.all("command").map(str::to_owned).collect();
    if command.is_empty() {
        return Err(Refusal::Bad("you must specify at least 1 container, command".to_owned()));
    }
    check(streams)?;
    let container = api.running(namespace, pod, container).await?;
    let url = api
        .shared
        .cri
        .exec_url(v1::ExecRequest {
            container_id: container.id,
            cmd: command,
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr && !streams.tty,
        })
        .await?;
    Ok(session(url, streams))
}

fn check(streams: Streams) -> Result<(), Refusal> {
    if streams.stdin || streams.stdout || streams.stderr {
        return Ok(());
    }
    Err(Refusal::Bad("you must specify at least 1 of stdin, stdout, stderr".to_owned()))
}

fn session(url: String, streams: Streams) -> Session {
    Session {
        url,
        protocol: upgrade::REMOTE_COMMAND,
        channels: channels::remote_command(streams),
        greetings: Vec::new(),
    }
}

pub(crate) async fn attach_by_uid(
    state: State<Api>,
    Path((namespace, pod, _uid, container)): Path<NamedByUid>,
    request: Request<Body>,
) -> Response<Body> {
    attach(state, Path((namespace, pod, container)), request).await
}

pub(crate) async fn attach(
    State(api): State<Api>,
    Path((namespace, pod, container)): Path<Named>,
    request: Request<Body>,
) -> Response<Body> {
    let query = Query::parse(request.uri().query());
    match attach_session(&api, &namespace, &pod, &container, &query).await {
        Ok(session) => upgrade::serve(request, session).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn attach_session(
    api: &Api,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &Query,
) -> Result<Session, Refusal> {
    let streams = streams(query);
    check(streams)?;
    let container = api.running(namespace, pod, container).await?;
    let url = api
        .shared
        .cri
        .attach_url(v1::AttachRequest {
            container_id: container.id,
            stdin: streams.stdin,
            tty: streams.tty,
            stdout: streams.stdout,
            stderr: streams.stderr && !streams.tty,
        })
        .await?;
    Ok(session(url, streams))
}

pub(crate) async fn port_forward_by_uid(
    state: State<Api>,
    Path((namespace, pod, _uid)): Path<Named>,
    request: Request<Body>,
) -> Response<Body> {
    port_forward(state, Path((namespace, pod)), request).await
}

pub(crate) async fn port_forward(
    State(api): State<Api>,
    Path((namespace, pod)): Path<(String, String)>,
    request: Request<Body>,
) -> Response<Body> {
    let query = Query::parse(request.uri().query());
    match port_forward_session(&api, &namespace, &pod, &query).await {
        Ok(session) => upgrade::serve(request, session).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn port_forward_session(
    api: &Api,
    namespace: &str,
    pod: &str,
    query: &Query,
) -> Result<Session, Refusal> {
    let (_, view) = api.look(namespace, pod).await?;
    let sandbox = view.sandbox().ok_or_else(|| Refusal::NoSandbox(format!("{namespace}/{pod}")))?;
    let ports: Vec<u16> = query
        .all("port")
        .chain(query.all("ports"))
        .flat_map(|list| list.split(','))
        .map(|port| port.parse().map_err(|error| Refusal::Bad(format!("port {port:?}: {error}"))))
        .collect::<Result<_, _>>()?;
    let numbers = ports.iter().map(|p| i32::from(*p)).collect();
    let url = api.shared.cri.port_forward_url(&sandbox.id, numbers).await?;
    let channels = channels::port_forward(&ports);
    // Clients of channels expect the port number as the first message of each.
    let greetings = channels
        .iter()
        .map(|c| {
            let port = ports.get(usize::from(c.number / 2)).copied().unwrap_or(0);
            let [low, high] = port.to_le_bytes();
            vec![c.number, low, high]
        })
        .collect();
    Ok(Session { url, protocol: upgrade::PORT_FORWARD, channels, greetings })
}
