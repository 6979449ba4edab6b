//! Subresources: parts of an object with a path of their own. Status goes the way of updates; the others have a file
//! each. Those that lead to a kubelet are the proxy's.

pub(crate) mod approval;
pub(crate) mod binding;
pub(crate) mod eviction;
pub(crate) mod finalize;
pub(crate) mod pod_parts;
pub(crate) mod scale;
pub(crate) mod token;

use crate::context::Context;
use crate::respond::HttpResponse;
use crate::rest::{Target, patch, read, update};
use crate::state::State;
use crate::status::{ApiError, ApiResult};

/// Serves a request for a subresource whose verb is served.
pub async fn handle(state: &State, context: &Context, target: &Target) -> ApiResult<HttpResponse> {
    let verb = context.info.verb.as_str();
    match (target.subresource.as_deref().unwrap_or_default(), verb) {
        ("status", "get") => read::get(&state.store, context, target).await,
        ("status", "update") => update::put(state, context, target).await,
        ("status", "patch") => patch::patch(state, context, target).await,
        ("scale", "get") => scale::get(state, context, target),
        ("scale", "update" | "patch") => scale::change(state, context, target).await,
        ("binding", "create") => binding::create(state, context, target).await,
        ("eviction", "create") => eviction::create(state, context, target).await,
        ("token", "create") => token::create(state, context, target).await,
        ("finalize", "update") => finalize::put(state, context, target).await,
        ("approval", "get") | ("ephemeralcontainers" | "resize", "get") => {
            read::get(&state.store, context, target).await
        }
        ("approval", "update" | "patch") => approval::change(state, context, target).await,
        ("ephemeralcontainers" | "resize", "update" | "patch") => {
            pod_parts::change(state, context, target).await
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// The target without its subresource.
pub fn parent(target: &Target) -> Target {
    Target {
        resource: std::sync::Arc::clone(&target.resource),
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        subresource: None,
    }
}

/// Reads a body or patch for the object itself: the whole object in an update, applied to `current` in a patch.
pub enum Change {
    /// The new object.
    Whole(serde_json::Value),
    /// A patch of it.
    Patch(patch::Patch),
}

impl Change {
    /// Reads the request.
    pub fn read(
        context: &Context,
        target: &Target,
        options: &crate::context::WriteOptions,
    ) -> ApiResult<Self> {
        if context.info.verb == "patch" {
            return patch::Patch::read(context, target).map(Self::Patch);
        }
        let mut body = crate::rest::create::decode_body(context, target, options)?;
        crate::meta::settle_namespace(&mut body, target.resource.namespaced, target.namespace.as_deref())?;
        if crate::meta::text(&body, "name") != target.name() {
            let message =
                format!("the name of the object does not match the name on the URL ({})", target.name());
            return Err(ApiError::bad_request(message));
        }
        target.resource.default(&mut body);
        Ok(Self::Whole(body))
    }

    /// The object after the change.
    pub fn apply(
        &self,
        context: &Context,
        target: &Target,
        options: &crate::context::WriteOptions,
        current: &serde_json::Value,
    ) -> ApiResult<serde_json::Value> {
        match self {
            Self::Whole(body) => Ok(body.clone()),
            Self::Patch(patch) => crate::rest::patch::patched(context, target, options, patch, current),
        }
    }
}
