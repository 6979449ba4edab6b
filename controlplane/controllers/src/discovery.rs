//! Every resource type the API serves, custom ones included, by asking it.

use kube::Client;
use kube::core::ApiResource;
use kube::discovery::{Discovery, Scope, verbs};

/// A type and what can be done with it.
#[derive(Debug, Clone)]
pub(crate) struct ResourceType {
    /// Group, version, kind and plural, in the group's preferred version.
    pub(crate) api: ApiResource,
    /// Whether its objects live in namespaces.
    pub(crate) namespaced: bool,
    /// Whether it can be listed.
    pub(crate) listable: bool,
    /// Whether it can be watched.
    pub(crate) watchable: bool,
    /// Whether its objects can be deleted.
    pub(crate) deletable: bool,
    /// Whether they can be deleted all at once.
    pub(crate) collectable: bool,
}

/// Asks the API for its types, each in the preferred version of its group.
pub(crate) async fn discover(client: &Client) -> Result<Vec<ResourceType>, kube::Error> {
    let found = match Discovery::new(client.clone()).run_aggregated().await {
        Ok(found) => found,
        // A server without the aggregated form.
        Err(_) => Discovery::new(client.clone()).run().await?,
    };
    let resources = found.groups().flat_map(|group| group.recommended_resources());
    let types = resources.map(|(api, capabilities)| ResourceType {
        namespaced: capabilities.scope == Scope::Namespaced,
        listable: capabilities.supports_operation(verbs::LIST),
        watchable: capabilities.supports_operation(verbs::WATCH),
        deletable: capabilities.supports_operation(verbs::DELETE),
        collectable: capabilities.supports_operation(verbs::DELETE_COLLECTION),
        api,
    });
    Ok(types.collect())
}
