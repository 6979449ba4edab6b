//! Decides how a client wants to stream, and answers its upgrade.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header},
};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use super::{
    bridge::{self, BridgeError},
    channels::Channel,
    dial::{self, DialError},
};

/// The subprotocol of SPDY inside a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Subprotocols of channels, the best first.
const CHANNELS: [&str; 3] = ["v5.channel.k8s.io", "v4.channel.k8s.io", "portforward.k8s.io"];
/// The SPDY protocol towards the runtime for exec and attach.
pub(crate) const REMOTE_COMMAND: &str = "v4.channel.k8s.io";
/// The SPDY protocol towards the runtime for port-forward.
pub(crate) const PORT_FORWARD: &str = "portforward.k8s.io";

/// What is to be streamed.
#[derive(Debug)]
pub(crate) struct Session {
    /// The runtime's URL.
    pub(crate) url: String,
    /// The protocol to ask the runtime for on behalf of WebSocket clients.
    pub(crate) protocol: &'static str,
    /// The channels of WebSocket clients.
    pub(crate) channels: Vec<Channel>,
    /// Messages that WebSocket clients expect first.
    pub(crate) greetings: Vec<Vec<u8>>,
}

/// How a client streams.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wish {
    /// Bare SPDY, offering these protocols.
    Spdy(Vec<String>),
    /// SPDY inside a WebSocket.
    Tunnel(HeaderValue),
    /// WebSocket channels of this subprotocol.
    Channels(&'static str, HeaderValue),
}

fn wish(headers: &HeaderMap) -> Option<Wish> {
    let upgrade = headers.get(header::UPGRADE)?.to_str().ok()?;
    if upgrade.eq_ignore_ascii_case("spdy/3.1") {
        return Some(Wish::Spdy(list(headers, "x-stream-protocol-version")));
    }
    if !upgrade.eq_ignore_ascii_case("websocket") {
        return None;
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()?;
    let offered = list(headers, "sec-websocket-protocol");
    if offered.iter().any(|p| p == TUNNEL) {
        return Some(Wish::Tunnel(accept));
    }
    let best = CHANNELS.into_iter().find(|known| offered.iter().any(|p| p == known))?;
    Some(Wish::Channels(best, accept))
}

fn list(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()).collect()
}

/// Answers the upgrade and streams in the background until either side is done.
pub(crate) async fn serve(mut request: Request<Body>, session: Session) -> Response<Body> {
    let Some(wish) = wish(request.headers()) else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "this endpoint needs an upgrade to SPDY/3.1 or a known WebSocket protocol",
        );
    };
    let protocols = match &wish {
        Wish::Spdy(offered) => offered.clone(),
        Wish::Tunnel(_) | Wish::Channels(..) => vec![session.protocol.to_owned()],
    };
    let runtime = match dial::spdy(&session.url, &protocols).await {
        Ok(runtime) => runtime,
        Err(error) => return refused(&error),
    };
    let answer = answer(&wish, runtime.protocol.as_deref());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let client = match upgrade.await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => {
                tracing::debug!(%error, "the client did not upgrade");
                return;
            }
        };
        let result = run(wish, client, runtime, &session).await;
        if let Err(error) = result {
            tracing::debug!(%error, "stream ended");
        }
    });
    answer
}

async fn run(
    wish: Wish,
    client: bridge::ClientIo,
    runtime: dial::Upgraded,
    session: &Session,
) -> Result<(), BridgeError> {
    match wish {
        Wish::Spdy(_) => bridge::pipe(client, runtime).await,
        Wish::Tunnel(_) => {
            let socket = WebSocketStream::from_raw_socket(client, Role::Server, None).await;
            bridge::tunnel(socket, runtime).await
        }
        Wish::Channels(..) => {
            let socket = WebSocketStream::from_raw_socket(client, Role::Server, None).await;
            bridge::translate(socket, runtime, &session.channels, &session.greetings).await
        }
    }
}

fn answer(wish: &Wish, protocol: Option<&str>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    match wish {
        Wish::Spdy(_) => {
            headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
            if let Some(value) = protocol.and_then(|p| HeaderValue::from_str(p).ok()) {
                headers.insert("x-stream-protocol-version", value);
            }
        }
        Wish::Tunnel(accept) => web_socket(headers, accept, TUNNEL),
        Wish::Channels(name, accept) => web_socket(headers, accept, name),
    }
    response
}

fn web_socket(headers: &mut HeaderMap, accept: &HeaderValue, protocol: &'static str) {
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept.clone());
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
}

fn refused(error: &DialError) -> Response<Body> {
    tracing::warn!(%error, "no stream");
    refuse(StatusCode::BAD_GATEWAY, &error.to_string())
}

/// A plain refusal.
pub(crate) fn refuse(code: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = code;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_best_known_protocol_is_chosen() {
        let socket = |protocols: &'static str| {
            headers(&[
                ("upgrade", "websocket"),
                ("sec-websocket-key", "x"),
                ("sec-websocket-protocol", protocols),
            ])
        };
        let chosen = wish(&socket("v4.channel.k8s.io, v5.channel.k8s.io"));
        assert!(matches!(chosen, Some(Wish::Channels("v5.channel.k8s.io", _))));
        assert!(matches!(wish(&socket("SPDY/3.1+portforward.k8s.io")), Some(Wish::Tunnel(_))));
        assert_eq!(wish(&socket("chat")), None);
    }

    #[test]
    fn bare_spdy_hands_its_offers_on() {
        let headers = headers(&[
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ("x-stream-protocol-version", "v3.channel.k8s.io"),
        ]);
        let offers = vec!["v4.channel.k8s.io".to_owned(), "v3.channel.k8s.io".to_owned()];
        assert_eq!(wish(&headers), Some(Wish::Spdy(offers)));
        assert_eq!(wish(&HeaderMap::new()), None);
    }
}
