//! Removes the `NodeEndpoints` of nodes that are gone, so that no peer keeps a route to them.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Preconditions},
};
use skep_api::NodeEndpoints;
use tokio::time::{MissedTickBehavior, interval};

/// How often the two lists are compared: a leftover is harmless, since its addresses belong to nobody else yet.
const EVERY: Duration = Duration::from_secs(30);

/// Compares for ever.
pub async fn collect(client: Client) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = collect_once(&client).await {
            tracing::warn!(%error, "leftovers of removed nodes stay for now");
        }
    }
}

async fn collect_once(client: &Client) -> kube::Result<()> {
    let objects: Api<NodeEndpoints> = Api::all(client.clone());
    // This order matters: a node that joins between the lists is in the second one.
    let published = objects.list_metadata(&ListParams::default()).await?.items;
    let nodes: Api<Node> = Api::all(client.clone());
    let nodes = nodes.list_metadata(&ListParams::default()).await?.items;
    for name in orphans(published.iter().map(|o| o.name_any()), nodes.iter().map(|o| o.name_any())) {
        let uid = published.iter().find(|object| object.name_any() == name).and_then(ResourceExt::uid);
        let preconditions = Some(Preconditions { uid, resource_version: None });
        match objects.delete(&name, &DeleteParams { preconditions, ..DeleteParams::default() }).await {
            Ok(_) => {
                tracing::info!(node = name, kind = %NodeEndpoints::kind(&()), "removed what the node left")
            }
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The published names that no node bears.
fn orphans(published: impl Iterator<Item = String>, nodes: impl Iterator<Item = String>) -> BTreeSet<String> {
    let nodes: BTreeSet<_> = nodes.collect();
    published.filter(|name| !nodes.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_node_bears_is_orphaned() {
        let names =
            |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>().into_iter();
        let found = orphans(names(&["a", "b"]), names(&["b", "c"]));
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["a"]);
    }
}
