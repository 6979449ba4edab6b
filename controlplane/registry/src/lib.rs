//! What each resource is: names, schema, defaults, validation, strategy, printer columns. Pure: no I/O, and the time
//! is a parameter.
//!
//! Start at [`Registry`]: it finds a [`Resource`] by path or kind, and a [`Resource`] answers everything that the API
//! server asks about one kind. Custom resources are installed into the same registry and answer the same questions.
//!
//! | module | owns |
//! |---|---|
//! | [`schema`] | field types, list and map semantics, enums, defaults |
//! | [`decode`] | bodies to checked values |
//! | [`error`], [`path`] | what is wrong and where |
//! | [`patch`] | strategic merge, JSON patch, merge patch |
//! | [`discovery`], [`openapi`] | the documents derived from all this |
//! | `group` | the built-in resources, one file each: defaults, validation, table row |
//! | `custom` | custom resources: pruning, defaults and validation by their own schema |
//!
//! Facts about types and names come from `tables/`, derived from a server's OpenAPI by `tables/derive.py`, and field
//! numbers from a client's descriptors by `tables/derive_wire.py`.

pub mod decode;
pub mod discovery;
pub mod error;
pub mod openapi;
pub mod patch;
pub mod path;
pub mod schema;

mod base64;
mod check;
mod conversion;
mod custom;
mod field;
mod group;
mod metadata;
mod registry;
mod resource;
mod row;
mod strategy;
mod table;

pub use decode::{DecodeError, FieldValidation};
pub use error::{FieldError, Reason};
pub use registry::{InstallError, Registry};
pub use resource::{Resource, StorageId, Subresource};
pub use row::Column;
pub use schema::{GroupVersionKind, Schema, SchemaRef};
