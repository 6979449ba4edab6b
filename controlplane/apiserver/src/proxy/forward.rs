//! Passes a request on and its answer back. Hop-by-hop headers stay on their hop; credentials and impersonation never
//! leave this server.

use axum::body::Body;
use http::header::{self, HeaderMap, HeaderName};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;

use crate::proxy::backend::{self, BackendError};
use crate::proxy::place::Place;
use crate::respond::HttpResponse;
use crate::state::State;
use crate::status::ApiError;

const PRIVATE: [HeaderName; 2] = [header::AUTHORIZATION, header::COOKIE];
const HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const MAX_EXPLANATION: usize = 64 * 1024;

/// Sends the request to the backend and returns its answer; an upgrade goes on behind the answer.
pub async fn forward(
    state: &State,
    place: &Place,
    mut request: Request<Body>,
) -> Result<HttpResponse, BackendError> {
    let stream = backend::connect(state.kubelets.as_ref(), place).await?;
    let upgrade = upgrade_header(request.headers());
    let client_side = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let mut outgoing = Request::builder().method(parts.method).uri(place.path.as_str()).body(body)?;
    *outgoing.headers_mut() = passed_on(&parts.headers, upgrade.as_ref());
    if let Ok(host) = place.address.to_string().parse() {
        outgoing.headers_mut().insert(header::HOST, host);
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a backend connection ended early");
        }
    });
    let mut answer = sender.send_request(outgoing).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        if let Some(client_side) = client_side {
            let server_side = hyper::upgrade::on(&mut answer);
            pipe(client_side, server_side, state.drain.clone());
        }
        return Ok(answer.map(Body::new));
    }
    let mut answer = answer.map(Body::new);
    for name in HOP {
        answer.headers_mut().remove(name);
    }
    if client_side.is_some() {
        // The client asked for another protocol and will not get it on this connection.
        answer.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    Ok(answer)
}

fn upgrade_header(headers: &HeaderMap) -> Option<header::HeaderValue> {
    let asks = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    let asks = asks.flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case("upgrade"));
    asks.then(|| headers.get(header::UPGRADE).cloned()).flatten()
}

fn passed_on(headers: &HeaderMap, upgrade: Option<&header::HeaderValue>) -> HeaderMap {
    let mut out = HeaderMap::new();
    for (name, value) in headers {
        let private = PRIVATE.contains(name) || name.as_str().starts_with("impersonate-");
        let hop = HOP.contains(&name.as_str()) || name == header::HOST;
        if !private && !hop {
            out.append(name.clone(), value.clone());
        }
    }
    if let Some(upgrade) = upgrade {
        out.insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
        out.insert(header::UPGRADE, upgrade.clone());
    }
    out
}

/// Copies both ways until either side ends or the server stops.
fn pipe(
    client: hyper::upgrade::OnUpgrade,
    server: hyper::upgrade::OnUpgrade,
    drain: tokio_util::sync::CancellationToken,
) {
    tokio::spawn(async move {
        let (client, server) = match tokio::try_join!(client, server) {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "an upgrade was not completed");
                return;
            }
        };
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        let copied = drain.run_until_cancelled(tokio::io::copy_bidirectional(&mut client, &mut server)).await;
        if let Some(Err(error)) = copied {
            tracing::debug!(%error, "a piped connection ended early");
        }
    });
}

/// The backend's refusal as a Status.
pub async fn explain(answer: HttpResponse) -> ApiError {
    let code = answer.status();
    let body = Limited::new(answer.into_body(), MAX_EXPLANATION).collect().await;
    let text = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).trim().to_owned()).unwrap_or_default();
    let status: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let text = status.and_then(|s| s["message"].as_str().map(str::to_owned)).unwrap_or(text);
    match code {
        StatusCode::BAD_REQUEST => ApiError::bad_request(text),
        StatusCode::NOT_FOUND => ApiError { message: text, ..ApiError::no_such_path() },
        _ => ApiError::internal(format!("the node answered {code}: {text}")),
    }
}
