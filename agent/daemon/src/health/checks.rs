//! Health check node ports: load balancers of Services with `externalTrafficPolicy: Local` ask each node whether it has
//! endpoints.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use skep_loadbalancer::HealthCheck;
use skep_model::NamespacedName;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::engine::Health;

/// How long until a port that somebody else holds is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How many endpoints there are, for load balancers that weigh nodes.
const WEIGHT: &str = "x-load-balancing-endpoint-weight";

/// What one port answers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    service: NamespacedName,
    local_endpoints: usize,
    is_synced: bool,
}

/// A port that is answered on.
struct Served {
    answer: watch::Sender<Answer>,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps a listener on every port that `health` names, for ever.
pub(crate) async fn serve_checks(mut health: watch::Receiver<Health>) {
    let mut served: BTreeMap<u16, Served> = BTreeMap::new();
    loop {
        let wanted = wanted(&health.borrow_and_update());
        served.retain(|port, _| wanted.contains_key(port));
        for (port, answer) in wanted {
            match served.get(&port) {
                Some(served) => drop(served.answer.send_replace(answer)),
                None => drop(served.insert(port, serve(port, answer))),
            }
        }
        if health.changed().await.is_err() {
            return;
        }
    }
}

/// Of two Services with one port, which the API server does not allow, the first is answered for.
fn wanted(health: &Health) -> BTreeMap<u16, Answer> {
    let mut wanted = BTreeMap::new();
    for (service, HealthCheck { port, local_endpoints }) in &health.checks {
        wanted.entry(*port).or_insert_with(|| Answer {
            service: service.clone(),
            local_endpoints: *local_endpoints,
            is_synced: health.is_synced,
        });
    }
    wanted
}

fn serve(port: u16, answer: Answer) -> Served {
    let (answer, source) = watch::channel(answer);
    Served { answer, task: tokio::spawn(listen(port, source)) }
}

async fn listen(port: u16, answer: watch::Receiver<Answer>) {
    let mut is_told = false;
    loop {
        match bind(SocketAddr::from(([0, 0, 0, 0], port))).await {
            Ok(listener) => {
                let routes = Router::new().fallback(check).with_state(answer.clone());
                let served = axum::serve(listener, routes).await;
                tracing::warn!(port, ?served, "a health check node port is not served any more, will retry");
            }
            Err(error) if !std::mem::replace(&mut is_told, true) => {
                let service = answer.borrow().service.clone();
                tracing::warn!(port, %service, %error, "a health check node port cannot be served, will retry");
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Listens; on the unspecified address of IPv4, on those of both families where the machine has them.
pub(super) async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port()));
    if address.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        && let Ok(listener) = TcpListener::bind(both).await
    {
        return Ok(listener);
    }
    TcpListener::bind(address).await
}

async fn check(State(answer): State<watch::Receiver<Answer>>) -> Response {
    let Answer { service, local_endpoints, is_synced } = answer.borrow().clone();
    let is_healthy = is_synced && local_endpoints > 0;
    let code = if is_healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({
        "service": {"namespace": service.namespace, "name": service.name},
        "localEndpoints": local_endpoints,
        "serviceProxyHealthy": is_synced,
    });
    let body = serde_json::to_string_pretty(&body).unwrap_or_default();
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (code, headers, [(WEIGHT, local_endpoints.to_string())], body).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn health(port: u16, local_endpoints: usize) -> Health {
        let name = NamespacedName::new("a", "web");
        Health {
            is_synced: true,
            checks: [(name, HealthCheck { port, local_endpoints })].into(),
            ..Health::default()
        }
    }

    async fn ask(port: u16) -> Option<String> {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: n\r\nconnection: close\r\n\r\n").await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(text)
    }

    async fn until(port: u16, wanted: impl Fn(Option<&str>) -> bool) {
        let settled = async {
            while !wanted(ask(port).await.as_deref()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), settled).await.unwrap();
    }

    #[tokio::test]
    async fn a_port_follows_its_service_and_goes_with_it() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let (sender, receiver) = watch::channel(health(port, 2));
        let task = tokio::spawn(serve_checks(receiver));
        until(port, |text| {
            text.is_some_and(|text| {
                text.starts_with("HTTP/1.1 200")
                    && text.contains("x-load-balancing-endpoint-weight: 2")
                    && text.contains("\"localEndpoints\": 2")
            })
        })
        .await;
        sender.send_replace(health(port, 0));
        until(port, |text| text.is_some_and(|text| text.starts_with("HTTP/1.1 503"))).await;
        sender.send_replace(Health::default());
        until(port, |text| text.is_none()).await;
        task.abort();
    }
}
