//! `get` and `list`: from the watch cache, as bytes where the client wants them as they are stored.

use std::time::Duration;

use http::StatusCode;
use skep_registry::Resource;
use skep_storage::{Expired, Object, Revision};
use std::sync::Arc;

use crate::context::Context;
use crate::list_options::{Continue, Freshness, ListOptions};
use crate::respond::HttpResponse;
use crate::rest::Target;
use crate::shape::{self, ListMeta};
use crate::status::{ApiError, ApiResult};
use crate::store::{self, Store};

/// How long a read waits for a version that the cache has not seen yet.
const CATCH_UP: Duration = Duration::from_secs(3);
/// Objects looked at in one go while a selector fills a page.
const CHUNK: usize = 500;

/// Answers `get`.
pub async fn get(store: &Store, context: &Context, target: &Target) -> ApiResult<HttpResponse> {
    if let Some(version) = context.query.get("resourceVersion")
        && let Some(revision) = store::revision(version)?
    {
        catch_up(store, revision).await?;
    } else if context.query.get("resourceVersion").is_none_or(|version| version.is_empty()) {
        newest(store).await?;
    }
    let object = find(store, target)?;
    shape::stored(context, &target.resource, StatusCode::OK, &object)
}

/// The object a request names, or 404.
pub fn find(store: &Store, target: &Target) -> ApiResult<Arc<Object>> {
    let name = target.name();
    let resource = &target.resource;
    let missing = || ApiError::not_found(&resource.group, &resource.plural, name);
    let key = store::key(resource, target.namespace.as_deref(), name).map_err(|_malformed| missing())?;
    store.cache().get(&key).ok_or_else(missing)
}

/// Answers `list`.
pub async fn list(store: &Store, context: &Context, target: &Target) -> ApiResult<HttpResponse> {
    let options = ListOptions::read(context, &target.resource, false)?;
    let page = page(store, target, &options).await?;
    shape::list(context, &target.resource, &page.meta, &page.objects)
}

/// The objects of a list and what the list says about itself.
pub struct Found {
    /// Objects that the selectors accept.
    pub objects: Vec<Arc<Object>>,
    /// The list's own metadata.
    pub meta: ListMeta,
}

/// Collects one page.
pub async fn page(store: &Store, target: &Target, options: &ListOptions) -> ApiResult<Found> {
    let at = settle_version(store, options).await?;
    let after = options.continued.as_ref().map(|c| c.key(&target.resource)).transpose()?;
    let id = store::resource_id(&target.resource)?;
    let namespace = target.namespace.as_deref();
    let mut gathered = Gather { store, id, namespace, at, options };
    gathered.run(&target.resource, after)
}

struct Gather<'a> {
    store: &'a Store,
    id: skep_storage::ResourceId,
    namespace: Option<&'a str>,
    at: Option<Revision>,
    options: &'a ListOptions,
}

impl Gather<'_> {
    fn run(&mut self, resource: &Resource, mut after: Option<skep_storage::Key>) -> ApiResult<Found> {
        let all = self.options.selects_all();
        let limit = self.options.limit;
        let mut objects: Vec<Arc<Object>> = Vec::new();
        loop {
            let chunk = limit.map(|n| if all { n } else { CHUNK.max(n) });
            let page = self
                .store
                .cache()
                .list(&self.id, self.namespace, self.at, after.as_ref(), chunk)
                .map_err(|expired| gone(expired, self.options))?;
            // Later chunks must show the same version.
            self.at = Some(page.revision);
            let more = page.remaining;
            let count = page.objects.len();
            for (seen, object) in page.objects.into_iter().enumerate() {
                after = Some(object.key().clone());
                if !self.options.matches(&object) {
                    continue;
                }
                objects.push(object);
                if limit == Some(objects.len()) {
                    let left = more + count - seen - 1;
                    return Ok(self.found(resource, objects, page.revision, left));
                }
            }
            if more == 0 {
                return Ok(self.found(resource, objects, page.revision, 0));
            }
        }
    }

    fn found(
        &self,
        _resource: &Resource,
        objects: Vec<Arc<Object>>,
        revision: Revision,
        left: usize,
    ) -> Found {
        let mut meta = ListMeta { resource_version: revision.to_string(), ..ListMeta::default() };
        if left > 0
            && let Some(last) = objects.last()
        {
            meta.next = Some(Continue::after(last, revision));
            meta.remaining = self.options.selects_all().then_some(left);
        }
        Found { objects, meta }
    }
}

async fn settle_version(store: &Store, options: &ListOptions) -> ApiResult<Option<Revision>> {
    if let Some(continued) = &options.continued {
        return Ok(Some(Revision(continued.revision)));
    }
    match options.freshness {
        Freshness::Newest => newest(store).await.map(|()| None),
        Freshness::Any => Ok(None),
        Freshness::NotOlderThan(revision) => catch_up(store, revision).await.map(|()| None),
        Freshness::Exact(revision) => catch_up(store, revision).await.map(|()| Some(revision)),
    }
}

/// Waits until the cache shows what any server over the same store has acknowledged.
async fn newest(store: &Store) -> ApiResult<()> {
    match tokio::time::timeout(CATCH_UP, store.cache().fresh()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(ApiError::unavailable(format!("the store does not answer: {error}"))),
        Err(_elapsed) => Err(ApiError::unavailable("the store does not answer in time".to_owned())),
    }
}

/// Waits until the cache has seen a version, not for long.
pub async fn catch_up(store: &Store, revision: Revision) -> ApiResult<()> {
    if store.cache().revision() >= revision {
        return Ok(());
    }
    tokio::time::timeout(CATCH_UP, store.cache().wait_for(revision))
        .await
        .map_err(|_elapsed| ApiError::version_too_large(revision.0, store.cache().revision().0))
}

fn gone(expired: Expired, options: &ListOptions) -> ApiError {
    let message = match options.continued {
        Some(_) => "The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.".to_owned(),
        None => format!("The resourceVersion for the provided list is too old: {expired}"),
    };
    ApiError::expired(message)
}
