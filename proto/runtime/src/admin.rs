//! The admin listener: `/healthz`, `/readyz`, `/metrics` and `PUT /log-level`, on loopback only.
//!
//! It has no authentication, so it refuses any address that is not loopback.

use std::{io, net::SocketAddr};

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, put},
};
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::net::TcpListener;

use crate::{drain::Drain, readiness::Readiness, telemetry::LogLevel};

/// What the listener shows.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The process's readiness conditions, shown by `/readyz`.
    pub readiness: Readiness,
    /// The metrics shown by `/metrics`.
    pub metrics: Registry,
    /// The filter that `PUT /log-level` changes.
    pub log_level: LogLevel,
}

impl Admin {
    /// The routes; a binary may merge its own read-only ones.
    pub fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/log-level", put(log_level))
            .with_state(self)
    }
}

/// Binds the listener.
///
/// # Errors
/// When the address is taken, or is not loopback.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_loopback() {
        let reason = format!("admin address {address} is not loopback; it has no authentication");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    TcpListener::bind(address).await
}

/// Serves `router` until the drain begins.
///
/// # Errors
/// When accepting fails for good.
pub async fn serve(listener: TcpListener, router: Router, drain: Drain) -> io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(async move { drain.cancelled().await }).await
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let body: String = admin
        .readiness
        .report()
        .into_iter()
        .map(|(name, met)| {
            format!("[{}]{name} {}\n", if met { '+' } else { '-' }, if met { "ok" } else { "not ready" })
        })
        .collect();
    let code = if admin.readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, body).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let mut body = Vec::new();
    match TextEncoder::new().encode(&admin.metrics.gather(), &mut body) {
        Ok(()) => ([("content-type", prometheus::TEXT_FORMAT)], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn log_level(State(admin): State<Admin>, filter: String) -> Response {
    match admin.log_level.set(filter.trim()) {
        Ok(()) => format!("log filter is now {}\n", filter.trim()).into_response(),
        Err(reason) => (StatusCode::BAD_REQUEST, format!("not a log filter: {reason}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refuses_an_address_that_others_reach() {
        let error = bind(SocketAddr::from(([0, 0, 0, 0], 0))).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("not loopback"));
    }
}
