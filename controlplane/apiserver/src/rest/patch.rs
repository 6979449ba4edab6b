//! `patch`: JSON patch, merge patch and strategic merge patch over the object as it is served, then an update.
//! An applied configuration is another matter and goes to [`apply`].

use serde_json::Value;
use skep_registry::FieldValidation;

use crate::context::{Context, WriteOptions};
use crate::media;
use crate::meta;
use crate::respond::HttpResponse;
use crate::rest::update::{Part, write};
use crate::rest::{Target, apply, json_patch};
use crate::state::State;
use crate::status::{ApiError, ApiResult, Cause};

const SUPPORTED: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    apply::MEDIA,
];

/// A decoded patch.
#[derive(Debug, Clone)]
pub enum Patch {
    /// RFC 6902.
    Json(Vec<Value>),
    /// RFC 7396.
    Merge(Value),
    /// Strategic merge.
    Strategic(Value),
}

/// Answers `patch` of an object or of its status.
pub async fn patch(state: &State, context: &Context, target: &Target) -> ApiResult<HttpResponse> {
    if media::content_media(&context.headers) == apply::MEDIA {
        return apply::apply(state, context, target).await;
    }
    let patch = Patch::read(context, target)?;
    let options = context.write_options("PatchOptions")?;
    if context.query.get("force").is_some() {
        let cause =
            Cause::new("FieldValueForbidden", "force", "Forbidden: may not be specified for non-apply patch");
        return Err(ApiError::invalid_option("PatchOptions", cause));
    }
    let part = if target.subresource.as_deref() == Some("status") { Part::Status } else { Part::Main };
    let change = |current: &Value| patched(context, target, &options, &patch, current);
    let written = write(state, context, target, &options, part, change).await?;
    written.answer(context, target)
}

/// Applies a patch to the object as it is and decodes the result.
pub fn patched(
    context: &Context,
    target: &Target,
    options: &WriteOptions,
    patch: &Patch,
    current: &Value,
) -> ApiResult<Value> {
    let resource = &target.resource;
    let result = patch.apply(resource.schema(), current)?;
    check_identity(target, &result, current)?;
    let (mut object, warnings) = resource
        .decode_value(result, options.validation)
        .map_err(|error| undecodable(target, &error, options))?;
    warnings.into_iter().for_each(|w| context.warn(w));
    meta::settle_namespace(&mut object, resource.namespaced, target.namespace.as_deref())?;
    resource.default(&mut object);
    Ok(object)
}

impl Patch {
    /// Reads the body by its media type.
    pub fn read(context: &Context, target: &Target) -> ApiResult<Self> {
        let media = media::content_media(&context.headers);
        let parsed = || -> ApiResult<Value> {
            serde_json::from_slice(&context.body)
                .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))
        };
        match media.as_str() {
            "application/json-patch+json" => {
                let document = parsed()?;
                match document {
                    Value::Null => Ok(Self::Json(Vec::new())),
                    Value::Array(operations) => Ok(Self::Json(operations)),
                    _ => Err(ApiError::bad_request(
                        "error decoding patch: a JSON patch is a list of operations",
                    )),
                }
            }
            "application/merge-patch+json" => object_only(parsed()?).map(Self::Merge),
            "application/strategic-merge-patch+json" if target.resource.builtin => {
                object_only(parsed()?).map(Self::Strategic)
            }
            _ => Err(ApiError::unsupported_media_type(&SUPPORTED)),
        }
    }

    /// The patched document.
    pub fn apply(&self, schema: &skep_registry::Schema, current: &Value) -> ApiResult<Value> {
        match self {
            Self::Json(operations) => json_patch::apply(current.clone(), operations)
                .map_err(|error| ApiError::unprocessable(error.to_string())),
            Self::Merge(patch) => Ok(skep_registry::patch::merge(current.clone(), patch)),
            Self::Strategic(patch) => skep_registry::patch::strategic_merge(schema, current, patch)
                .map_err(|error| ApiError::bad_request(error.to_string())),
        }
    }
}

fn object_only(patch: Value) -> ApiResult<Value> {
    if patch.is_object() {
        Ok(patch)
    } else {
        Err(ApiError::bad_request("error decoding patch: the patch must be an object"))
    }
}

/// A patch may not make another object of the one it is for.
fn check_identity(target: &Target, result: &Value, current: &Value) -> ApiResult<()> {
    for field in ["apiVersion", "kind"] {
        match &result[field] {
            Value::String(text) if current[field] == *text => {}
            Value::String(text) => {
                let message = format!("Invalid value: the patch changes {field} to {text:?}");
                let cause = Cause::new("FieldValueInvalid", "patch", message);
                let mut error = ApiError::unprocessable(cause.message.clone());
                error.details.get_or_insert_default().causes.push(cause);
                return Err(error);
            }
            _ => return Err(ApiError::bad_request(format!("the patched object has no {field}"))),
        }
    }
    let name = meta::text(result, "name");
    if name != target.name() {
        let message =
            format!("the name of the object ({name}) does not match the name on the URL ({})", target.name());
        return Err(ApiError::bad_request(message));
    }
    Ok(())
}

/// A patched object of the wrong shape is the patch's fault.
fn undecodable(_target: &Target, error: &skep_registry::DecodeError, options: &WriteOptions) -> ApiError {
    if options.validation == FieldValidation::Strict && matches!(error, skep_registry::DecodeError::Strict(_))
    {
        return ApiError::bad_request(error.to_string());
    }
    let cause = Cause::new("FieldValueInvalid", "patch", format!("Invalid value: {error}"));
    let mut refused = ApiError::unprocessable(cause.message.clone());
    refused.details.get_or_insert_default().causes.push(cause);
    refused
}
