//! A server over a store in memory and ways to call it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use skep_apiserver::{ApiServer, ApiServerConfig, UserInfo};
use skep_pki::ServiceAccountKey;
use skep_runtime::{Drain, DrainTrigger};
use skep_storage::MemoryStorage;
use tower::ServiceExt;

/// A running server and the user who calls it.
pub(crate) struct Bench {
    server: Arc<ApiServer>,
    user: UserInfo,
    _stop: Option<DrainTrigger>,
}

impl Bench {
    pub(crate) async fn start() -> Self {
        Self::with_services("10.96.0.0/16").await
    }

    /// A server whose Services have addresses of these ranges.
    pub(crate) async fn with_services(ranges: &str) -> Self {
        let key = ServiceAccountKey::create().unwrap().private_pem();
        let mut config = ApiServerConfig::new(IpAddr::V4(Ipv4Addr::LOCALHOST), key);
        config.service_cidr = ranges.to_owned();
        let server = ApiServer::open(Arc::new(MemoryStorage::new()), config).await.unwrap();
        let (trigger, drain) = Drain::new();
        server.bootstrap().await.unwrap();
        server.run_background(&drain);
        let user = UserInfo::new("admin", ["system:masters".to_owned()]);
        Self { server, user, _stop: Some(trigger) }
    }

    pub(crate) fn as_user(&self, name: &str, groups: &[&str]) -> Self {
        let user = UserInfo::new(name, groups.iter().map(|g| (*g).to_owned()));
        Self { server: Arc::clone(&self.server), user, _stop: None }
    }

    pub(crate) fn client(&self) -> kube::Client {
        self.server.in_process_client("admin", &["system:masters"])
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        self.send(method, path, "application/json", body).await
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.call("GET", path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.call("POST", path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, kind: &str, body: &Value) -> (StatusCode, Value) {
        self.send("PATCH", path, &format!("application/{kind}-patch+json"), Some(body)).await
    }

    pub(crate) async fn apply(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send("PATCH", path, "application/apply-patch+yaml", Some(body)).await
    }

    async fn send(&self, method: &str, path: &str, media: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let body = body.map(|b| Body::from(b.to_string())).unwrap_or_default();
        let request =
            Request::builder().method(method).uri(path).header("content-type", media).body(body).unwrap();
        read(self.server.call_as(self.user.clone(), request).await).await
    }

    pub(crate) async fn with_token(&self, token: &str, path: &str) -> (StatusCode, Value) {
        let request = Request::builder().uri(path).header("authorization", format!("Bearer {token}"));
        read(self.server.router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()).await
    }

    pub(crate) async fn anonymous(&self, path: &str) -> StatusCode {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        self.server.router().oneshot(request).await.unwrap().status()
    }

    /// Makes the account that pods run as.
    pub(crate) async fn account(&self, namespace: &str) {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        self.post(&path, &json!({"metadata": {"name": "default"}})).await;
    }

    /// Waits until a path answers with a code.
    pub(crate) async fn until(&self, path: &str, code: StatusCode) {
        let arrived = async {
            while self.get(path).await.0 != code {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), arrived).await.unwrap();
    }
}

async fn read(response: http::Response<Body>) -> (StatusCode, Value) {
    let code = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

/// A minimal pod.
pub(crate) fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}
