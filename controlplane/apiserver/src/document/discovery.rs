//! Discovery in both forms, and OpenAPI. Documents come from the registry; this is negotiation and caching headers.

use axum::body::Body;
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;
use skep_registry::Registry;

use crate::context::Context;
use crate::document::openapi_proto;
use crate::document::rendered::Rendered;
use crate::media::{self, Encoding};
use crate::respond::{self, HttpResponse};
use crate::state::State;
use crate::status::{ApiError, ApiResult};

/// `/api`, `/apis` and below.
pub fn handle(state: &State, context: &Context, parts: &[&str]) -> ApiResult<HttpResponse> {
    let registry = state.registry.snapshot();
    let known = |group: &str| registry.groups().iter().any(|g| *g.name == *group);
    let document = match parts {
        ["api"] | ["apis"] => {
            let core = parts == ["api"];
            if let Some(kind) = wants_aggregated(context) {
                let rendered = state.documents.get(&registry, parts[0], kind, || {
                    Some(skep_registry::discovery::aggregated(&registry, core).to_string().into_bytes())
                });
                return rendered
                    .map(|rendered| cached(context, &rendered))
                    .ok_or_else(ApiError::no_such_path);
            }
            let authority = super::authority(state);
            Some(match core {
                true => skep_registry::discovery::api_versions(&registry, &authority),
                false => skep_registry::discovery::api_groups(&registry),
            })
        }
        ["api", version] => skep_registry::discovery::resource_list(&registry, "", version),
        ["apis", group] if known(group) => skep_registry::discovery::api_group(&registry, group),
        ["apis", group, version] if known(group) => {
            skep_registry::discovery::resource_list(&registry, group, version)
        }
        ["apis", ..] if !parts.iter().any(|p| p.is_empty()) => return Ok(respond::page_not_found()),
        _ => None,
    };
    let document = document.ok_or_else(ApiError::no_such_path)?;
    let encoding = media::negotiate(&context.headers)?.encoding;
    Ok(respond::document(StatusCode::OK, encoding, &document))
}

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The content type of the aggregated form, when the client prefers it.
fn wants_aggregated(context: &Context) -> Option<&'static str> {
    for clause in media::clauses(&context.headers) {
        if clause.media != "application/json" {
            continue;
        }
        match (clause.param("g"), clause.param("v"), clause.param("as")) {
            (Some("apidiscovery.k8s.io"), Some("v2"), Some("APIGroupDiscoveryList")) => {
                return Some(AGGREGATED);
            }
            (None, None, None) => return None,
            _ => {}
        }
    }
    None
}

/// An answer with an ETag, or 304 when the client has it already.
fn cached(context: &Context, document: &Rendered) -> HttpResponse {
    let (content_type, quoted) = (document.content_type, &document.tag);
    let fresh =
        context.header("if-none-match").is_some_and(|tags| tags.split(',').any(|t| t.trim() == quoted));
    let mut response = if fresh {
        respond::bytes(StatusCode::NOT_MODIFIED, content_type, Body::empty())
    } else {
        respond::bytes(StatusCode::OK, content_type, document.body.clone())
    };
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    if let Ok(value) = HeaderValue::from_str(quoted) {
        headers.insert(header::ETAG, value);
    }
    response
}

/// `/openapi/v2`, `/openapi/v3` and below.
pub fn openapi(state: &State, context: &Context, parts: &[&str]) -> ApiResult<HttpResponse> {
    let acceptable = media::clauses(&context.headers);
    let json = acceptable.is_empty()
        || acceptable
            .iter()
            .any(|c| matches!(c.media.as_str(), "application/json" | "*/*" | "application/*"));
    let binary = parts == ["openapi", "v2"] && acceptable.iter().any(|c| openapi_proto::is_wanted(&c.media));
    let registry = state.registry.snapshot();
    let content_type =
        if !json && binary { openapi_proto::CONTENT_TYPE } else { Encoding::Json.content_type() };
    let rendered = state.documents.get(&registry, &parts.join("/"), content_type, || {
        let document = openapi_document(&registry, parts)?;
        Some(match content_type {
            openapi_proto::CONTENT_TYPE => openapi_proto::encode(&document),
            _ => document.to_string().into_bytes(),
        })
    });
    match rendered {
        None => Ok(respond::page_not_found()),
        Some(_) if !json && !binary => Err(ApiError::not_acceptable(&["application/json"])),
        Some(rendered) => Ok(cached(context, &rendered)),
    }
}

fn openapi_document(registry: &Registry, parts: &[&str]) -> Option<Value> {
    match parts {
        ["openapi", "v2"] => Some(skep_registry::openapi::v2(registry)),
        ["openapi", "v3"] => Some(skep_registry::openapi::v3_root(registry)),
        ["openapi", "v3", "api", version] => skep_registry::openapi::v3_group(registry, "", version),
        ["openapi", "v3", "apis", group, version] => {
            skep_registry::openapi::v3_group(registry, group, version)
        }
        _ => None,
    }
}
