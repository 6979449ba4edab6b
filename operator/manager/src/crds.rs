//! Our custom resource definitions, created or brought up to this version.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, ResourceExt, api::PostParams};

/// Creates what is missing and replaces what differs.
///
/// # Errors
/// When the API refuses or cannot be reached.
pub async fn ensure(client: &Client) -> kube::Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for mut wanted in skep_api::definitions() {
        let name = wanted.name_any();
        match api.get_opt(&name).await? {
            None => {
                api.create(&PostParams::default(), &wanted).await?;
                tracing::info!(name, "created the custom resource definition");
            }
            Some(found) if covers(&found, &wanted) => {}
            Some(found) => {
                wanted.metadata.resource_version = found.resource_version();
                api.replace(&name, &PostParams::default(), &wanted).await?;
                tracing::info!(name, "updated the custom resource definition");
            }
        }
    }
    Ok(())
}

/// Whether the schemas and columns that we serve are those found; what the server defaults is of no concern.
fn covers(found: &CustomResourceDefinition, wanted: &CustomResourceDefinition) -> bool {
    let versions = |crd: &CustomResourceDefinition| {
        let part = |version: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionVersion| {
            (version.name.clone(), version.schema.clone(), version.additional_printer_columns.clone())
        };
        crd.spec.versions.iter().map(part).collect::<Vec<_>>()
    };
    versions(found) == versions(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_with_an_older_schema_is_replaced_and_server_defaults_are_not() {
        let wanted = skep_api::node_endpoints::definition();
        let mut found = wanted.clone();
        found.spec.names.list_kind = Some("NodeEndpointsList".into());
        assert!(covers(&found, &wanted));
        found.spec.versions[0].schema = None;
        assert!(!covers(&found, &wanted));
    }
}
