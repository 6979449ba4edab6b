//! What load balancers outside ask: whether this node's proxy works, and whether it has endpoints of a Service. Paths,
//! codes, headers and bodies are kube-proxy's, since that is whom they believe to talk to.

mod checks;

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
pub(crate) use checks::serve_checks;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;

use crate::engine::Health;

/// How long until the port is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Says whether kube-proxy, or whoever else, holds its port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PortState {
    /// Not asked for.
    #[default]
    Off,
    /// Ours.
    Served,
    /// Somebody else's.
    Taken,
}

/// Serves kube-proxy's health port, for ever. While somebody else holds it, the try is repeated.
pub(crate) async fn serve_proxy_health(
    address: SocketAddr,
    health: watch::Receiver<Health>,
    state: watch::Sender<PortState>,
) {
    loop {
        match checks::bind(address).await {
            Ok(listener) => {
                state.send_replace(PortState::Served);
                let served = axum::serve(listener, routes(health.clone())).await;
                tracing::warn!(%address, ?served, "kube-proxy's health port is not served any more, will retry");
            }
            Err(error) => {
                if state.send_replace(PortState::Taken) != PortState::Taken {
                    tracing::warn!(
                        %address, %error,
                        "kube-proxy's health port cannot be served: is kube-proxy still running on this node?"
                    );
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn routes(health: watch::Receiver<Health>) -> Router {
    Router::new().route("/healthz", get(healthz)).route("/livez", get(livez)).with_state(health)
}

async fn healthz(State(health): State<watch::Receiver<Health>>) -> Response {
    let health = health.borrow().clone();
    let (now, updated) = times(&health);
    let eligible = !health.is_leaving;
    let body =
        format!(r#"{{"lastUpdated": "{updated}","currentTime": "{now}", "nodeEligible": {eligible}}}"#);
    json(health.is_synced && eligible, body)
}

async fn livez(State(health): State<watch::Receiver<Health>>) -> Response {
    let health = health.borrow().clone();
    let (now, updated) = times(&health);
    json(health.is_synced, format!(r#"{{"lastUpdated": "{updated}","currentTime": "{now}"}}"#))
}

/// Now, and the last update: of a proxy that has nothing left to do that is now.
fn times(health: &Health) -> (String, String) {
    let now = SystemTime::now();
    let updated = if health.is_synced { now } else { health.updated.unwrap_or(SystemTime::UNIX_EPOCH) };
    (show(now), show(updated))
}

fn show(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d %H:%M:%S.%f +0000 UTC").to_string()
}

fn json(is_healthy: bool, body: String) -> Response {
    let code = if is_healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (code, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(health: Health, path: &str) -> (u16, serde_json::Value) {
        let (_sender, receiver) = watch::channel(health);
        let response = match path {
            "healthz" => healthz(State(receiver)).await,
            _ => livez(State(receiver)).await,
        };
        let code = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        (code, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_node_is_healthy_when_synced_and_not_leaving() {
        let synced = Health { is_synced: true, ..Health::default() };
        let leaving = Health { is_leaving: true, ..synced.clone() };
        let (code, body) = ask(synced, "healthz").await;
        assert_eq!((code, &body["nodeEligible"]), (200, &true.into()));
        assert!(body["lastUpdated"].is_string() && body["currentTime"].is_string());
        let (code, body) = ask(leaving.clone(), "healthz").await;
        assert_eq!((code, &body["nodeEligible"]), (503, &false.into()));
        assert_eq!(ask(leaving, "livez").await.0, 200);
        assert_eq!(ask(Health::default(), "healthz").await.0, 503);
        assert_eq!(ask(Health::default(), "livez").await.0, 503);
    }
}
