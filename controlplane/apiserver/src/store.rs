//! The last stage of every request: typed keys, reads from the watch cache, and commits whose failures speak the
//! API's language. Nothing above this module touches storage.

use std::sync::Arc;

use serde_json::Value;
use skep_registry::Resource;
use skep_storage::{
    Cache, CommitError, Committed, Expect, Key, Object, Op, ResourceId, Revision, Transaction,
};

use crate::status::{ApiError, ApiResult};

/// Access to the objects of the cluster.
#[derive(Clone)]
pub struct Store {
    cache: Arc<Cache>,
}

/// Why a write did not happen.
#[derive(Debug)]
pub enum WriteError {
    /// The key was not as expected; nothing was written.
    Conflict(Key),
    /// Everything else, ready for the client.
    Api(ApiError),
}

impl Store {
    /// Over a cache.
    pub fn new(cache: Arc<Cache>) -> Self {
        Self { cache }
    }

    /// The watch cache itself.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// The current state of an object by its place; a malformed name is nobody's.
    pub fn find(
        &self,
        group: &str,
        resource: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Option<Arc<Object>> {
        let id = ResourceId::new(group, resource).ok()?;
        self.cache.get(&Key::new(id, namespace, name).ok()?)
    }

    /// The same, decoded.
    pub fn value(&self, group: &str, resource: &str, namespace: Option<&str>, name: &str) -> Option<Value> {
        decode(&*self.find(group, resource, namespace, name)?).ok()
    }

    /// All objects of a resource, decoded.
    pub fn values(&self, group: &str, resource: &str, namespace: Option<&str>) -> Vec<Value> {
        self.objects(group, resource, namespace).iter().filter_map(|o| decode(o).ok()).collect()
    }

    /// All objects of a resource.
    pub fn objects(&self, group: &str, resource: &str, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let Ok(id) = ResourceId::new(group, resource) else { return Vec::new() };
        self.cache.list(&id, namespace, None, None, None).map(|page| page.objects).unwrap_or_default()
    }

    /// Commits and waits until the cache shows it. After a conflict the cache shows what was in the way, so that the
    /// caller's next attempt starts from there.
    pub async fn commit(&self, ops: Vec<Op>) -> Result<Committed, WriteError> {
        let error = match self.cache.commit(Transaction::new(ops)).await {
            Ok(committed) => return Ok(committed),
            Err(error) => error,
        };
        match error {
            CommitError::Conflict { key, .. } => {
                if let Err(error) = self.cache.fresh().await {
                    tracing::debug!(%error, "the cache could not catch up after a conflict");
                }
                Err(WriteError::Conflict(key))
            }
            CommitError::TooLarge { bytes, .. } => Err(WriteError::Api(ApiError::too_large(bytes))),
            other => Err(WriteError::Api(failed(&other))),
        }
    }
}

fn failed(error: &CommitError) -> ApiError {
    tracing::error!(error = %error, source = ?std::error::Error::source(error), "the store refused a write");
    match error {
        CommitError::Unavailable(_) => ApiError::unavailable(error.to_string()),
        _ => ApiError::internal(error),
    }
}

/// Key of an object of a resource; a name that cannot be a key is reported as the client wrote it.
pub fn key(resource: &Resource, namespace: Option<&str>, name: &str) -> ApiResult<Key> {
    Key::new(resource_id(resource)?, namespace.filter(|_| resource.namespaced), name)
        .map_err(|error| ApiError::bad_request(error.to_string()))
}

/// Storage id of a resource.
pub fn resource_id(resource: &Resource) -> ApiResult<ResourceId> {
    ResourceId::new(&resource.storage_id.group, &resource.storage_id.resource).map_err(ApiError::internal)
}

/// The stored object as a value, with its resourceVersion.
pub fn decode(object: &Object) -> ApiResult<Value> {
    serde_json::from_slice(object.json()).map_err(ApiError::internal)
}

/// The stored object in the version of a resource.
pub fn served(resource: &Resource, object: &Object) -> ApiResult<Value> {
    let value = decode(object)?;
    Ok(if resource.converts() { resource.from_storage(value) } else { value })
}

/// Expectation that an object is still as it was read.
pub fn unchanged(object: &Object) -> Expect {
    Expect::At(object.revision())
}

/// Parses a resourceVersion that is neither empty nor `0`.
pub fn revision(text: &str) -> ApiResult<Option<Revision>> {
    match text {
        "" | "0" => Ok(None),
        _ => text.parse().map(Some).map_err(|_not_a_number| {
            ApiError::bad_request(format!("invalid resource version \"{text}\": it must be a decimal number"))
        }),
    }
}
