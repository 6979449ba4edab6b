//! Applying objects through the API: create what is missing, patch what differs.

use std::collections::HashMap;

use anyhow::{Context, Result};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind, TypeMeta};
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client};
use serde_json::Value;

/// What to do with an object that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Bring its fields to what is asked for.
    Patch,
    /// It belongs to the user now.
    Keep,
}

/// Applies objects in their order.
pub(crate) async fn apply(client: &Client, objects: &[Value], existing: Existing) -> Result<()> {
    let mut known: HashMap<GroupVersionKind, (ApiResource, Scope)> = HashMap::new();
    for object in objects {
        let types: TypeMeta = serde_json::from_value(object.clone()).context("an object without kind")?;
        let gvk = GroupVersionKind::try_from(&types)?;
        if !known.contains_key(&gvk) {
            let (resource, capabilities) = pinned_kind(client, &gvk)
                .await
                .with_context(|| format!("the API server does not serve {}", types.kind))?;
            known.insert(gvk.clone(), (resource, capabilities.scope));
        }
        let Some((resource, scope)) = known.get(&gvk) else { continue };
        let api = api(client, resource, scope, object);
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        apply_one(&api, name, object, existing)
            .await
            .with_context(|| format!("cannot apply {} {name}", types.kind))?;
    }
    Ok(())
}

fn api(client: &Client, resource: &ApiResource, scope: &Scope, object: &Value) -> Api<DynamicObject> {
    match scope {
        Scope::Cluster => Api::all_with(client.clone(), resource),
        Scope::Namespaced => {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
            Api::namespaced_with(client.clone(), namespace, resource)
        }
    }
}

async fn apply_one(
    api: &Api<DynamicObject>,
    name: &str,
    object: &Value,
    existing: Existing,
) -> kube::Result<()> {
    if api.get_opt(name).await?.is_none() {
        let fresh: DynamicObject = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
        match api.create(&PostParams::default(), &fresh).await {
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
            other => return other.map(drop),
        }
    }
    if existing == Existing::Patch {
        api.patch(name, &PatchParams::default(), &Patch::Merge(object)).await?;
    }
    Ok(())
}
