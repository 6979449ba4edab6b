//! `create`: decode, mutate, fill in, validate, commit.

use http::StatusCode;
use serde_json::Value;
use skep_storage::{Expect, Op};

use crate::admission::{self, Operation, Request};
use crate::context::{Context, WriteOptions};
use crate::media::{self, BodyEncoding};
use crate::meta;
use crate::respond::HttpResponse;
use crate::rest::{Target, invalid};
use crate::shape;
use crate::state::State;
use crate::status::{ApiError, ApiResult, Cause};
use crate::store::{self, WriteError};

/// Attempts when a generated name or an allocation meets another writer's.
const ATTEMPTS: usize = 8;

/// Answers `create`.
pub async fn create(state: &State, context: &Context, target: &Target) -> ApiResult<HttpResponse> {
    let options = context.write_options("CreateOptions")?;
    let object = decode_body(context, target, &options)?;
    create_value(state, context, target, &options, object).await
}

/// Decodes the request body as an object of the target's resource.
pub fn decode_body(context: &Context, target: &Target, options: &WriteOptions) -> ApiResult<Value> {
    let encoding = media::body_encoding(&context.headers)?;
    if encoding == BodyEncoding::Protobuf && !target.resource.builtin {
        return Err(ApiError::unsupported_media_type(&media::SUPPORTED));
    }
    let body: &[u8] = if context.body.as_ref() == b"null" { b"{}" } else { &context.body };
    let (object, warnings) = target
        .resource
        .decode(body, options.validation)
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    warnings.into_iter().for_each(|w| context.warn(w));
    Ok(object)
}

/// Creates a decoded object.
pub async fn create_value(
    state: &State,
    context: &Context,
    target: &Target,
    options: &WriteOptions,
    mut object: Value,
) -> ApiResult<HttpResponse> {
    let resource = &target.resource;
    meta::settle_namespace(&mut object, resource.namespaced, target.namespace.as_deref())?;
    if !matches!(meta::text(&object, "resourceVersion"), "") {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    if !options.managed {
        meta::clear(&mut object, "managedFields");
    }
    resource.default(&mut object);
    let request = Request { user: &context.user, target, operation: Operation::Create, options, context };
    admission::mutate(state, &request, &mut object, None)?;
    let generated = meta::generates_name(&object);
    let prefix = meta::text(&object, "generateName").to_owned();
    for _attempt in 0..ATTEMPTS {
        let mut object = object.clone();
        prepare(target, &mut object)?;
        let created = validate_and_commit(state, &request, object).await;
        match created {
            Err(Refusal::NameTaken(_)) if generated => continue,
            Err(Refusal::AllocationTaken) => continue,
            Err(Refusal::NameTaken(error) | Refusal::Api(error)) => return Err(error),
            Ok(answer) => return Ok(answer),
        }
    }
    let message = format!("no free name was found for the prefix \"{prefix}\": try again");
    Err(ApiError::already_exists(&resource.group, &resource.plural, &prefix)
        .cause("", "", &message)
        .retry_after(1))
}

enum Refusal {
    NameTaken(ApiError),
    AllocationTaken,
    Api(ApiError),
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

fn prepare(target: &Target, object: &mut Value) -> ApiResult<()> {
    meta::fill_system_fields(object);
    meta::generate_name(object);
    target.resource.prepare_create(object);
    if meta::text(object, "name").is_empty() {
        let cause = Cause::new(
            "FieldValueRequired",
            "metadata.name",
            "Required value: name or generateName is required",
        );
        return Err(ApiError::invalid(&target.resource.group, &target.resource.kind, "", vec![cause]));
    }
    Ok(())
}

async fn validate_and_commit(
    state: &State,
    request: &Request<'_>,
    mut object: Value,
) -> Result<HttpResponse, Refusal> {
    let (context, target, resource) = (request.context, request.target, &request.target.resource);
    let name = meta::text(&object, "name").to_owned();
    let mut extra = state.services.on_create(state, target, &mut object)?;
    invalid(resource, &name, resource.validate_create(&object))?;
    admission::validate(state, request, Some(&object), None)?;
    resource.warnings(&object).into_iter().for_each(|w| context.warn(w));
    meta::order(&mut object);
    let key = store::key(resource, target.namespace.as_deref(), &name)?;
    if state.store.cache().get(&key).is_some() {
        let taken = ApiError::already_exists(&resource.group, &resource.plural, &name);
        return Err(Refusal::NameTaken(taken));
    }
    if request.options.dry_run {
        return Ok(shape::value(context, resource, StatusCode::CREATED, object)?);
    }
    let mut ops =
        vec![Op::Put { key: key.clone(), value: resource.canonical(&object), expect: Expect::Absent }];
    ops.append(&mut extra);
    match state.commit(ops).await {
        Ok(committed) => {
            let created = committed.objects.first().cloned().flatten();
            let created =
                created.ok_or_else(|| ApiError::internal("the created object is not in the cache"))?;
            Ok(shape::stored(context, resource, StatusCode::CREATED, &created)?)
        }
        Err(WriteError::Conflict(taken)) if taken == key => {
            Err(Refusal::NameTaken(ApiError::already_exists(&resource.group, &resource.plural, &name)))
        }
        Err(WriteError::Conflict(_)) => Err(Refusal::AllocationTaken),
        Err(WriteError::Api(error)) => Err(Refusal::Api(error)),
    }
}
