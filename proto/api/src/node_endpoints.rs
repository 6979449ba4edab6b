//! `NodeEndpoints`: one cluster-scoped object a node, in which its agent publishes the pods it holds.
//!
//! Agents watch these instead of Pods: an entry appears when the address is allocated, before the pod runs, and
//! carries only what peers and policy need.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What one node holds.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "skep.dev",
    version = "v1alpha1",
    kind = "NodeEndpoints",
    plural = "nodeendpoints",
    singular = "nodeendpoints",
    shortname = "nep",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Node-IP","type":"string","jsonPath":".spec.nodeIP"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct NodeEndpointsSpec {
    /// The node's underlay address.
    #[serde(rename = "nodeIP")]
    pub node_ip: String,
    /// The pod blocks that the node owns.
    #[serde(rename = "podCIDRs", default, skip_serializing_if = "Vec::is_empty")]
    pub pod_cidrs: Vec<String>,
    /// The pods with an address on the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<PodEndpoint>,
}

/// A pod that has an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodEndpoint {
    /// The pod's address.
    pub ip: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The pod's service account.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service_account: String,
}

/// The definition to install.
#[must_use]
pub fn definition() -> CustomResourceDefinition {
    NodeEndpoints::crd()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition_is_cluster_scoped_and_keeps_the_wire_names() {
        let crd = serde_json::to_value(definition()).unwrap();
        assert_eq!(crd["spec"]["scope"], "Cluster");
        let version = &crd["spec"]["versions"][0];
        let spec = &version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        assert!(spec["nodeIP"].is_object() && spec["podCIDRs"].is_object());
        assert_eq!(crd["metadata"]["name"], "nodeendpoints.skep.dev");
    }
}
