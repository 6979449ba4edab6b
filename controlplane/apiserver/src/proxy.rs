//! What leads out of the API server: logs, exec, attach and port-forward through the node's kubelet, and the proxies to
//! nodes, pods and Services. Upgrades are piped byte for byte once the other side has answered 101; anything else is
//! returned and the connection closed. Redirects are never followed.

mod backend;
mod forward;
mod place;

use axum::body::Body;
use http::Request;
use std::sync::Arc;

use crate::authz::{self, Ask};
use crate::context::Context;
use crate::respond::{self, HttpResponse};
use crate::state::State;
use crate::status::ApiError;
pub use backend::KubeletClient;

/// Subresources of pods that the node's kubelet serves.
const KUBELET_PARTS: [&str; 4] = ["log", "exec", "attach", "portforward"];

/// Whether a request leads out.
pub fn is_proxied(context: &Context) -> bool {
    let info = &context.info;
    let Some(sub) = info.subresource.as_deref() else { return false };
    if !info.is_resource || !info.group.is_empty() || info.version != "v1" || info.name.is_none() {
        return false;
    }
    match info.resource.as_str() {
        "pods" => {
            info.namespace.is_some()
                && (sub == "proxy" || (KUBELET_PARTS.contains(&sub) && info.rest.is_none()))
        }
        "services" => info.namespace.is_some() && sub == "proxy",
        "nodes" => info.namespace.is_none() && sub == "proxy",
        _ => false,
    }
}

/// Serves such a request.
pub async fn handle(
    state: &Arc<State>,
    context: &Context,
    request: Request<Body>,
) -> Result<HttpResponse, ApiError> {
    let sub = context.info.subresource.as_deref().unwrap_or_default();
    match (sub, context.method.as_str()) {
        ("log", "GET") | ("exec" | "attach" | "portforward", "GET" | "POST") | ("proxy", _) => {}
        _ => return Err(ApiError::method_not_allowed()),
    }
    let streams = matches!(sub, "exec" | "attach" | "portforward");
    // A node's proxy reaches the same streams of its kubelet, and every one begins as an upgrade.
    let upgrades = context.info.resource == "nodes" && request.headers().contains_key(http::header::UPGRADE);
    if context.method == http::Method::GET && (streams || upgrades) {
        may_create(state, context)?;
    }
    let streamed = sub == "log";
    let place = match place::find(state, context)? {
        Some(place) => place,
        // A pod that nobody runs yet has said nothing.
        None if streamed => {
            return Ok(respond::bytes(http::StatusCode::NO_CONTENT, "text/plain", Body::empty()));
        }
        None => {
            let name = context.info.name.as_deref().unwrap_or_default();
            return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
        }
    };
    match forward::forward(state, &place, request).await {
        Ok(answer) if streamed && !answer.status().is_success() => Err(forward::explain(answer).await),
        Ok(answer) => Ok(respond::with_warnings(answer, context)),
        Err(error) => {
            tracing::debug!(%error, "a backend could not be reached");
            Err(ApiError::internal(format!("error dialing backend: {error}")))
        }
    }
}

/// Running something in a pod is a create, also when a WebSocket client has to say GET.
fn may_create(state: &State, context: &Context) -> Result<(), ApiError> {
    let ask = Ask { verb: "create", ..Ask::of(&context.info, &context.query) };
    authz::authorize(state, &context.user, &ask).map_err(|why| authz::forbidden(&context.user, &ask, &why))
}
