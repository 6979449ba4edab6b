//! Resources over HTTP: finds what a request addresses, checks that the verb is served there, and hands over to the
//! module of the verb. One file a verb below.

pub(crate) mod apply;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod delete_options;
pub(crate) mod json_patch;
pub(crate) mod patch;
pub(crate) mod read;
pub(crate) mod update;
pub(crate) mod watch;

use std::sync::Arc;

use skep_registry::{Registry, Resource};

use crate::context::Context;
use crate::respond::HttpResponse;
use crate::state::State;
use crate::status::{ApiError, ApiResult};

/// What a request addresses.
pub struct Target {
    /// The resource, in the version asked for.
    pub resource: Arc<Resource>,
    /// Namespace of the request; `None` for cluster scope and for all namespaces.
    pub namespace: Option<String>,
    /// Object named.
    pub name: Option<String>,
    /// Subresource named.
    pub subresource: Option<String>,
}

impl Target {
    /// The object's name, empty when none is addressed.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// 403 for the object addressed.
    pub fn forbidden(&self, why: &str) -> ApiError {
        ApiError::forbidden(&self.resource.group, &self.resource.plural, self.name(), why)
    }

    /// The same place as a resource of its own group, for stages that go by group and plural.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        &*self.resource.group == group && &*self.resource.plural == plural
    }
}

/// Why a path leads nowhere.
enum Nowhere {
    /// The group is not served at all.
    UnknownGroup,
    /// The group is served, the resource is not.
    Refused(ApiError),
}

/// Serves a resource request.
pub async fn handle(state: &Arc<State>, context: &Context) -> Result<HttpResponse, ApiError> {
    let registry = state.registry.snapshot();
    let target = match locate(&registry, context) {
        Ok(target) => target,
        Err(Nowhere::UnknownGroup) => return Ok(crate::respond::page_not_found()),
        Err(Nowhere::Refused(error)) => return Err(error),
    };
    check_verb(context, &target)?;
    if target.subresource.is_some() {
        return crate::subresource::handle(state, context, &target).await;
    }
    if let Some(answer) = crate::review::handle(state, context, &target)? {
        return Ok(answer);
    }
    warn_of_deprecation(context, &target);
    match context.info.verb.as_str() {
        "get" => read::get(&state.store, context, &target).await,
        "list" => read::list(&state.store, context, &target).await,
        "watch" => watch::watch(state, context, &target).await,
        "create" if target.is("", "bindings") => {
            crate::subresource::binding::create(state, context, &target).await
        }
        "create" => create::create(state, context, &target).await,
        "update" => update::put(state, context, &target).await,
        "patch" => patch::patch(state, context, &target).await,
        "delete" => delete::delete(state, context, &target).await,
        "deletecollection" => delete::delete_collection(state, context, &target).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

fn locate(registry: &Registry, context: &Context) -> Result<Target, Nowhere> {
    let info = &context.info;
    let Some(resource) = registry.lookup(&info.group, &info.version, &info.resource) else {
        let known = registry.groups().iter().any(|g| *g.name == *info.group);
        return Err(if known { Nowhere::Refused(ApiError::no_such_path()) } else { Nowhere::UnknownGroup });
    };
    let namespace = info.namespace.clone().filter(|_| resource.namespaced);
    let misplaced = if resource.namespaced {
        namespace.is_none() && (info.name.is_some() || !has_collection(&resource))
    } else {
        // `/namespaces/x/nodes` is no path; a namespace itself carries its own name.
        info.namespace.is_some() && &*resource.plural != "namespaces"
    };
    let unknown_part = info.subresource.as_deref().is_some_and(|s| resource.subresource(s).is_none());
    let too_long = info.rest.is_some() && !matches!(info.subresource.as_deref(), Some("proxy"));
    if unknown_part && !misplaced && !resource.builtin {
        let name = info.name.as_deref().unwrap_or_default();
        return Err(Nowhere::Refused(ApiError::not_found(&resource.group, &resource.plural, name)));
    }
    if misplaced || unknown_part || too_long {
        return Err(Nowhere::Refused(ApiError::no_such_path()));
    }
    Ok(Target { resource, namespace, name: info.name.clone(), subresource: info.subresource.clone() })
}

/// Whether `list` over all namespaces exists, so that the path without one does.
fn has_collection(resource: &Resource) -> bool {
    resource.has_verb("list")
}

fn check_verb(context: &Context, target: &Target) -> ApiResult<()> {
    let verb = context.info.verb.as_str();
    let resource = &target.resource;
    if let Some(name) = &target.subresource {
        let sub = resource.subresource(name).ok_or_else(ApiError::no_such_path)?;
        let served = sub.verbs.iter().any(|v| &**v == verb) || (&*sub.name == "proxy" && !verb.is_empty());
        return if served { Ok(()) } else { Err(ApiError::method_not_allowed()) };
    }
    let fits = match verb {
        "get" | "update" | "patch" | "delete" => target.name.is_some(),
        "list" | "watch" => true,
        "create" => target.name.is_none() && (target.namespace.is_some() || !resource.namespaced),
        "deletecollection" => target.namespace.is_some() || !resource.namespaced,
        _ => false,
    };
    if !fits || !resource.has_verb(verb) {
        // A resource that cannot be read at all has no item paths.
        let no_items = target.name.is_some() && !resource.has_verb("get") && !resource.has_verb("delete");
        return Err(if no_items { ApiError::no_such_path() } else { ApiError::method_not_allowed() });
    }
    Ok(())
}

fn warn_of_deprecation(context: &Context, target: &Target) {
    if target.is("", "endpoints") {
        context.warn("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice");
    } else if target.is("", "componentstatuses") {
        context.warn("v1 ComponentStatus is deprecated in v1.19+");
    }
}

/// 422 from what the registry found.
pub fn invalid(resource: &Resource, name: &str, found: Vec<skep_registry::FieldError>) -> ApiResult<()> {
    if found.is_empty() {
        return Ok(());
    }
    let causes =
        found.iter().map(|e| crate::status::Cause::new(e.reason.cause(), &e.field, e.message())).collect();
    Err(ApiError::invalid(&resource.group, &resource.kind, name, causes))
}
