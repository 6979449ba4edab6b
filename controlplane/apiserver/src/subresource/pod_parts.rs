//! Parts of a running pod that may change: `ephemeralcontainers` and `resize`. Owns also the decoding of bodies whose
//! kind is no resource (Binding, Eviction, Scale, TokenRequest).

use serde_json::Value;
use skep_registry::GroupVersionKind;

use crate::context::Context;
use crate::media::{self, BodyEncoding};
use crate::meta;
use crate::respond::HttpResponse;
use crate::rest::update::{Part, write};
use crate::rest::{Target, invalid};
use crate::state::State;
use crate::status::{ApiError, ApiResult};
use crate::subresource::{Change, approval};

/// Answers `update` and `patch` of a pod's part.
pub async fn change(state: &State, context: &Context, target: &Target) -> ApiResult<HttpResponse> {
    let options = context.write_options("UpdateOptions")?;
    let change = Change::read(context, target, &options)?;
    let part = target.subresource.as_deref().unwrap_or_default();
    let settle = |current: &Value| {
        let asked = change.apply(context, target, &options, current)?;
        let mut new = asked.clone();
        target.resource.prepare_subresource(part, &mut new, current);
        approval::carry_version(&mut new, &asked);
        meta::keep_system_fields(&mut new, current);
        let counted = current["metadata"]["generation"].as_i64().unwrap_or(0)
            + i64::from(new["spec"] != current["spec"]);
        meta::set(&mut new, "generation", counted);
        invalid(&target.resource, target.name(), target.resource.validate_subresource(part, &new, current))?;
        Ok(new)
    };
    write(state, context, target, &options, Part::Settled, settle).await?.answer(context, target)
}

/// Decodes a body of a kind that is no resource.
pub fn decode(state: &State, context: &Context, group: &str, version: &str, kind: &str) -> ApiResult<Value> {
    decode_value(state, context, parse(context)?, group, version, kind)
}

/// The body as a value of whatever kind it says.
pub fn parse(context: &Context) -> ApiResult<Value> {
    let encoding = media::body_encoding(&context.headers)?;
    let body: &[u8] = if context.body.is_empty() { b"{}" } else { &context.body };
    match encoding {
        BodyEncoding::Json => serde_json::from_slice(body).map_err(|error| undecodable(&error)),
        BodyEncoding::Yaml => serde_yaml_ng::from_slice(body).map_err(|error| undecodable(&error)),
        BodyEncoding::Protobuf => {
            skep_registry::decode::parse(body).map(|(value, _)| value).map_err(|error| undecodable(&error))
        }
    }
}

/// The same for an object that is parsed already.
pub fn decode_value(
    state: &State,
    context: &Context,
    value: Value,
    group: &str,
    version: &str,
    kind: &str,
) -> ApiResult<Value> {
    let gvk = GroupVersionKind::new(group, version, kind);
    let schema = state
        .registry
        .snapshot()
        .schema_of(&gvk)
        .ok_or_else(|| ApiError::internal(format!("the registry has no schema for {kind}")))?;
    let validation = context.write_options("UpdateOptions")?.validation;
    let (value, warnings) = skep_registry::decode::decode_value(&schema, &gvk, value, Vec::new(), validation)
        .map_err(|error| undecodable(&error))?;
    warnings.into_iter().for_each(|w| context.warn(w));
    Ok(value)
}

fn undecodable(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::bad_request(error.to_string())
}
