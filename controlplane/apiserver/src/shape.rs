//! Objects and lists in the shape the client asked for: as they are, as a Table, or metadata only.

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use skep_registry::Resource;
use skep_storage::Object;

use crate::context::Context;
use crate::media::{Encoding, MetaVersion, Shape};
use crate::respond::{self, HttpResponse};
use crate::status::{ApiError, ApiResult};
use crate::store;

/// What rows of a table carry besides the cells (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    Nothing,
    /// Metadata only.
    Metadata,
    /// The whole object.
    Object,
}

impl Include {
    /// Reads the query parameter.
    pub fn read(context: &Context) -> ApiResult<Self> {
        if !matches!(context.accept.shape, Shape::Table(_)) {
            return Ok(Self::Metadata);
        }
        match context.query.get("includeObject").unwrap_or_default() {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::Nothing),
            "Object" => Ok(Self::Object),
            other => {
                let message =
                    format!("unrecognized includeObject value: {other:?}: use None, Metadata or Object");
                Err(ApiError::bad_request(message))
            }
        }
    }
}

/// Answers with one stored object.
pub fn stored(
    context: &Context,
    resource: &Resource,
    code: StatusCode,
    object: &Object,
) -> ApiResult<HttpResponse> {
    if context.accept.shape == Shape::Object && !resource.converts() {
        return respond::encoded(code, context.accept.encoding, object.json().clone());
    }
    value(context, resource, code, store::served(resource, object)?)
}

/// Answers with one object in flight.
pub fn value(
    context: &Context,
    resource: &Resource,
    code: StatusCode,
    object: Value,
) -> ApiResult<HttpResponse> {
    let shaped = match context.accept.shape {
        Shape::Object => object,
        Shape::Partial(version) => partial(&object, version),
        Shape::Table(version) => {
            let include = Include::read(context)?;
            let list_meta = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            table(resource, version, include, true, list_meta, std::iter::once(object))
        }
    };
    Ok(respond::document(code, context.accept.encoding, &shaped))
}

/// Metadata of an object, as `PartialObjectMetadata`.
pub fn partial(object: &Value, version: MetaVersion) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": version.api_version(),
        "metadata": object["metadata"],
    })
}

/// A `Table` of objects.
pub fn table(
    resource: &Resource,
    version: MetaVersion,
    include: Include,
    header: bool,
    metadata: Value,
    objects: impl Iterator<Item = Value>,
) -> Value {
    let now = Timestamp::now();
    let rows: Vec<Value> = objects.map(|object| row(resource, version, include, object, now)).collect();
    json!({
        "kind": "Table",
        "apiVersion": version.api_version(),
        "metadata": metadata,
        "columnDefinitions": if header { columns(resource) } else { Value::Null },
        "rows": rows,
    })
}

fn row(resource: &Resource, version: MetaVersion, include: Include, object: Value, now: Timestamp) -> Value {
    let mut out = json!({"cells": resource.row(&object, now)});
    match include {
        Include::Nothing => {
            out["object"] = Value::Null;
        }
        Include::Metadata => out["object"] = partial(&object, version),
        Include::Object => out["object"] = object,
    }
    out
}

fn columns(resource: &Resource) -> Value {
    resource
        .columns()
        .iter()
        .map(|c| {
            json!({
                "name": c.name, "type": c.kind, "format": c.format,
                "description": c.description, "priority": c.priority,
            })
        })
        .collect()
}

/// Everything a list says about itself.
#[derive(Debug, Clone, Default)]
pub struct ListMeta {
    /// Version the list shows.
    pub resource_version: String,
    /// Token of the next page.
    pub next: Option<String>,
    /// Objects behind this page.
    pub remaining: Option<usize>,
}

impl ListMeta {
    fn to_value(&self) -> Value {
        let mut out = Map::new();
        out.insert("resourceVersion".into(), self.resource_version.clone().into());
        if let Some(next) = &self.next {
            out.insert("continue".into(), next.clone().into());
        }
        if let Some(remaining) = self.remaining {
            out.insert("remainingItemCount".into(), remaining.into());
        }
        Value::Object(out)
    }
}

/// Answers with a list of stored objects.
pub fn list(
    context: &Context,
    resource: &Resource,
    meta: &ListMeta,
    objects: &[std::sync::Arc<Object>],
) -> ApiResult<HttpResponse> {
    let served = || objects.iter().map(|o| store::served(resource, o)).collect::<ApiResult<Vec<Value>>>();
    let document = match context.accept.shape {
        Shape::Object if !resource.converts() && context.accept.encoding == Encoding::Json => {
            return Ok(respond::bytes(StatusCode::OK, "application/json", splice(resource, meta, objects)));
        }
        Shape::Object => list_document(resource, meta, served()?),
        Shape::Partial(version) => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": version.api_version(),
            "metadata": meta.to_value(),
            "items": partial_items(&served()?, version),
        }),
        Shape::Table(version) => {
            table(resource, version, Include::read(context)?, true, meta.to_value(), served()?.into_iter())
        }
    };
    Ok(respond::document(StatusCode::OK, context.accept.encoding, &document))
}

/// Upstream answers `null` for an empty list of metadata.
fn partial_items(objects: &[Value], version: MetaVersion) -> Value {
    if objects.is_empty() {
        return Value::Null;
    }
    objects.iter().map(|o| partial(o, version)).collect()
}

/// A list document of objects in flight.
pub fn list_document(resource: &Resource, meta: &ListMeta, mut objects: Vec<Value>) -> Value {
    if resource.builtin {
        for object in objects.iter_mut().filter_map(Value::as_object_mut) {
            object.shift_remove("apiVersion");
            object.shift_remove("kind");
        }
    }
    json!({
        "kind": &*resource.list_kind,
        "apiVersion": resource.api_version(),
        "metadata": meta.to_value(),
        "items": objects,
    })
}

/// Builds the list around stored bytes.
fn splice(resource: &Resource, meta: &ListMeta, objects: &[std::sync::Arc<Object>]) -> Body {
    let size: usize = objects.iter().map(|o| o.json().len() + 1).sum();
    let mut out = BytesMut::with_capacity(size + 256);
    out.put_slice(
        format!(
            "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{},\"items\":[",
            Value::from(&*resource.list_kind),
            Value::from(resource.api_version()),
            meta.to_value(),
        )
        .as_bytes(),
    );
    for (i, object) in objects.iter().enumerate() {
        if i > 0 {
            out.put_u8(b',');
        }
        if resource.builtin {
            object.write_item(&mut out);
        } else {
            out.put_slice(object.json());
        }
    }
    out.put_slice(b"]}\n");
    let body: Bytes = out.freeze();
    Body::from(body)
}
