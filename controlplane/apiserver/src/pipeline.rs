//! The path of a request, stage by stage:
//!
//! 1. parse the request line;
//! 2. authenticate, impersonate;
//! 3. authorize;
//! 4. (later: audit, priority and fairness)
//! 5. dispatch: documents, or a resource. Writes then go through admission (mutate, validate) to the store.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::authn;
use crate::authz;
use crate::context::Context;
use crate::media;
use crate::request_info::{Query, RequestInfo};
use crate::respond::{self, HttpResponse};
use crate::state::State;
use crate::status::{ApiError, ApiResult};

/// Serves one request.
pub async fn serve(state: Arc<State>, request: Request<Body>) -> HttpResponse {
    let began = Instant::now();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let path = crate::request_info::decode(&request.uri().path().replace('+', "%2B"));
    let info = RequestInfo::parse(request.method().as_str(), &path, &query);
    let labels = crate::metrics::Labels::of(&info);
    let headers = request.headers().clone();
    let response = stages(&state, request, info, query).await;
    let response = response.unwrap_or_else(|error| respond::failure(&headers, &error));
    state.metrics.observe(&labels, response.status().as_u16(), began.elapsed());
    response
}

async fn stages(
    state: &Arc<State>,
    request: Request<Body>,
    info: RequestInfo,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let user = authn::authenticate(state, request.headers(), request.extensions())?;
    let user = authn::impersonation::impersonate(state, user, request.headers())?;
    let (parts, body) = request.into_parts();
    let mut context = Context::new(parts.method.clone(), info, query, parts.headers.clone(), user);
    authz::check(state, &context)?;
    if crate::proxy::is_proxied(&context) {
        let request = Request::from_parts(parts, body);
        return crate::proxy::handle(state, &context, request).await;
    }
    if !context.info.is_resource {
        return crate::document::handle(state, &context).await;
    }
    context.accept = negotiate(&context)?;
    context.body = read_body(state, &parts.headers, body).await?;
    let answer = crate::rest::handle(state, &context).await;
    let answer = answer.unwrap_or_else(|error| respond::error(&context, &error));
    Ok(respond::with_warnings(answer, &context))
}

fn negotiate(context: &Context) -> ApiResult<media::Negotiated> {
    match media::negotiate(&context.headers) {
        // What changes nothing and is not found should say so whatever the client accepts.
        Err(error) if context.info.verb.is_empty() => Err(ApiError { code: 405, ..error }),
        other => other,
    }
}

async fn read_body(state: &State, headers: &http::HeaderMap, body: Body) -> ApiResult<bytes::Bytes> {
    let limit = state.config.max_body;
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<usize>().ok())
        .unwrap_or_default();
    if announced > limit {
        return Err(ApiError::too_large(limit));
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::too_large(limit)),
        Err(error) => Err(ApiError::bad_request(format!("the request body could not be read: {error}"))),
    }
}

/// What a method no resource knows answers.
pub fn method_not_allowed(context: &Context) -> HttpResponse {
    let mut response = respond::error(context, &ApiError::method_not_allowed());
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}
