//! Answers on the wire: objects, lists, tables and statuses in the negotiated encoding, with the headers every answer
//! carries. The fast path hands stored bytes through untouched.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::context::Context;
use crate::media::{Encoding, error_encoding};
use crate::status::{ApiError, ApiResult};

/// An answer.
pub type HttpResponse = Response<Body>;

/// Bytes with a content type.
pub fn bytes(code: StatusCode, content_type: &'static str, body: impl Into<Body>) -> HttpResponse {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Plain text.
pub fn text(code: StatusCode, body: impl Into<String>) -> HttpResponse {
    bytes(code, "text/plain; charset=utf-8", body.into())
}

/// What paths outside of any API answer.
pub fn page_not_found() -> HttpResponse {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// A document in an encoding.
pub fn document(code: StatusCode, encoding: Encoding, document: &Value) -> HttpResponse {
    match encode(encoding, document) {
        Ok(body) => bytes(code, encoding.content_type(), body),
        Err(error) => {
            bytes(StatusCode::INTERNAL_SERVER_ERROR, "application/json", error.to_value().to_string())
        }
    }
}

/// JSON that is already encoded, in the encoding asked for.
pub fn encoded(code: StatusCode, encoding: Encoding, json: Bytes) -> ApiResult<HttpResponse> {
    match encoding {
        Encoding::Json => Ok(bytes(code, encoding.content_type(), json)),
        Encoding::Yaml => {
            let value: Value = serde_json::from_slice(&json).map_err(ApiError::internal)?;
            Ok(document(code, encoding, &value))
        }
    }
}

fn encode(encoding: Encoding, document: &Value) -> ApiResult<Bytes> {
    match encoding {
        Encoding::Json => Ok(Bytes::from(document.to_string())),
        Encoding::Yaml => serde_yaml_ng::to_string(document).map(Bytes::from).map_err(ApiError::internal),
    }
}

/// An error, in the encoding the client asked for if we have it.
pub fn error(context: &Context, error: &ApiError) -> HttpResponse {
    failure(&context.headers, error)
}

/// An error before there is a context.
pub fn failure(headers: &http::HeaderMap, error: &ApiError) -> HttpResponse {
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = document(code, error_encoding(headers), &error.to_value());
    if let Some(seconds) = error.details.as_ref().and_then(|d| d.retry_after_seconds) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds the collected warnings as headers.
pub fn with_warnings(mut response: HttpResponse, context: &Context) -> HttpResponse {
    for warning in context.warnings() {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

/// The `Status` of a finished deletion.
pub fn deleted(group: &str, plural: &str, name: &str, uid: &str) -> Value {
    let mut details = json!({"name": name});
    if !group.is_empty() {
        details["group"] = group.into();
    }
    details["kind"] = plural.into();
    if !uid.is_empty() {
        details["uid"] = uid.into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// A plain success.
pub fn success() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
}
