//! Paths that are no resources: discovery, OpenAPI, version, health, metrics, the token issuer's documents.

mod discovery;
mod health;
mod openapi_proto;
pub mod rendered;

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use crate::context::Context;
use crate::media::{self, Encoding};
use crate::respond::{self, HttpResponse};
use crate::state::State;
use crate::status::{ApiError, ApiResult};

/// Serves a non-resource path.
pub async fn handle(state: &Arc<State>, context: &Context) -> ApiResult<HttpResponse> {
    let path = context.info.path.as_str();
    let plain = path.strip_suffix('/').filter(|p| !p.is_empty()).unwrap_or(path);
    if let Some(answer) = health::handle(state, context, plain) {
        return Ok(answer);
    }
    let parts: Vec<&str> = plain.trim_start_matches('/').split('/').collect();
    let answer = match parts.as_slice() {
        [""] => json_only(context, &root_paths(state)),
        ["version"] => version(context),
        ["metrics"] => Ok(metrics(state)),
        ["api" | "apis", ..] => discovery::handle(state, context, &parts),
        ["openapi", ..] => discovery::openapi(state, context, &parts),
        [".well-known", "openid-configuration"] => {
            let uri = format!("https://{}/openid/v1/jwks", authority(state));
            Ok(json_answer(&state.tokens.discovery(&uri)))
        }
        ["openid", "v1", "jwks"] => {
            Ok(respond::bytes(StatusCode::OK, "application/jwk-set+json", state.tokens.key_set().to_string()))
        }
        _ => Ok(respond::page_not_found()),
    }?;
    if answer.status() == StatusCode::OK && !matches!(context.method.as_str(), "GET") {
        return Ok(crate::pipeline::method_not_allowed(context));
    }
    Ok(answer)
}

/// `HOST:PORT` this server is advertised under.
pub fn authority(state: &State) -> String {
    std::net::SocketAddr::new(state.config.advertise_address, state.config.advertise_port).to_string()
}

fn json_answer(document: &Value) -> HttpResponse {
    respond::document(StatusCode::OK, Encoding::Json, document)
}

/// Documents that exist in JSON alone.
fn json_only(context: &Context, document: &Value) -> ApiResult<HttpResponse> {
    match media::negotiate(&context.headers)?.encoding {
        Encoding::Json => Ok(json_answer(document)),
        Encoding::Yaml => Err(ApiError::not_acceptable(&["application/json"])),
    }
}

fn version(context: &Context) -> ApiResult<HttpResponse> {
    json_only(
        context,
        &json!({
            "major": "1",
            "minor": "36",
            "emulationMajor": "1",
            "emulationMinor": "36",
            "minCompatibilityMajor": "1",
            "minCompatibilityMinor": "35",
            "gitVersion": concat!("v1.36.0+skep.", env!("CARGO_PKG_VERSION")),
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "",
            "compiler": "rustc",
            "platform": format!("{}/{}", std::env::consts::OS, platform()),
        }),
    )
}

/// The architecture by the name container images use.
fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn metrics(state: &State) -> HttpResponse {
    respond::bytes(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", state.metrics.render())
}

fn root_paths(state: &State) -> Value {
    let registry = state.registry.snapshot();
    let mut paths: Vec<String> =
        vec!["/.well-known/openid-configuration".into(), "/api".into(), "/apis".into()];
    for group in registry.groups() {
        if group.name.is_empty() {
            paths.extend(group.versions.iter().map(|v| format!("/api/{v}")));
        } else {
            paths.push(format!("/apis/{}", group.name));
            paths.extend(group.versions.iter().map(|v| format!("/apis/{}/{v}", group.name)));
        }
    }
    let fixed = [
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ];
    paths.extend(fixed.map(str::to_owned));
    paths.sort();
    json!({"paths": paths})
}
