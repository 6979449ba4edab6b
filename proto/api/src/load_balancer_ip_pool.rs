//! `LoadBalancerIPPool`: addresses that Services of type LoadBalancer may be given.
//!
//! The operator allocates from them (LB-IPAM) and reports in the status; who announces the addresses is another
//! matter, see [`crate::l2_announcement_policy`].

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector},
};
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The `spec.loadBalancerClass` that is ours.
pub const CLASS: &str = "skep.dev/l2";
/// Annotation of a Service: the addresses it wants, separated by commas.
pub const WANTED_IPS: &str = "lbipam.skep.dev/ips";
/// Annotation of a Service: Services with the same key may share an address.
pub const SHARING_KEY: &str = "lbipam.skep.dev/sharing-key";
/// Annotation of a Service: other namespaces that it shares with, separated by commas, or `*`. Both sides must agree.
pub const SHARING_NAMESPACES: &str = "lbipam.skep.dev/sharing-cross-namespace";
/// Condition of a Service: whether it has every address that it asks for.
pub const ASSIGNED: &str = "lbipam.skep.dev/IPAssigned";
/// Key in a pool's service selector that stands for the Service's namespace.
pub const NAMESPACE_LABEL: &str = "io.kubernetes.service.namespace";
/// Key in a pool's service selector that stands for the Service's name.
pub const NAME_LABEL: &str = "io.kubernetes.service.name";

/// What may be given to whom.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "skep.dev",
    version = "v1alpha1",
    kind = "LoadBalancerIPPool",
    plural = "loadbalancerippools",
    singular = "loadbalancerippool",
    shortname = "lbippool",
    shortname = "ippool",
    status = "LoadBalancerIPPoolStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Disabled","type":"boolean","jsonPath":".spec.disabled"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Total","type":"string","jsonPath":".status.total"}"#,
    printcolumn = r#"{"name":"Used","type":"string","jsonPath":".status.used"}"#,
    printcolumn = r#"{"name":"Available","type":"string","jsonPath":".status.available"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerIPPoolSpec {
    /// Ranges of addresses, of either family. They must overlap neither each other nor those of another pool.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub blocks: Vec<IpBlock>,
    /// The Services that may use the pool; all when absent. Besides the Service's labels it may name
    /// `io.kubernetes.service.namespace` and `io.kubernetes.service.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_selector: Option<LabelSelector>,
    /// Gives no new addresses; Services keep those they have.
    #[serde(default)]
    pub disabled: bool,
    /// Gives the first and last address of each `cidr` too, which in IPv4 are often the network and broadcast
    /// addresses. Blocks of one or two addresses, and those with `start`, are always given in full.
    #[serde(default, rename = "allowFirstLastIPs")]
    pub allow_first_last_ips: bool,
}

/// A range of addresses: `cidr`, or `start` with or without `stop`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IpBlock {
    /// A range in prefix notation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-fA-F.:]+/[0-9]{1,3}$"))]
    pub cidr: Option<String>,
    /// First address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-fA-F.:]+$"))]
    pub start: Option<String>,
    /// Last address; `start` alone is a range of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-fA-F.:]+$"))]
    pub stop: Option<String>,
}

/// How a pool fares. The numbers are texts because a range of IPv6 exceeds what numbers in JSON hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerIPPoolStatus {
    /// `Ready`, `Conflict`, `InsidePodRange`, `InsideServiceRange`, `Exhausted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// How many addresses it can give.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub total: String,
    /// How many of them are free.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub available: String,
    /// How many Services hold.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub used: String,
}

/// The definition to install.
#[must_use]
pub fn definition() -> CustomResourceDefinition {
    LoadBalancerIPPool::crd()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition_is_cluster_scoped_with_a_status_and_the_wire_names() {
        let crd = serde_json::to_value(definition()).unwrap();
        assert_eq!(crd["spec"]["scope"], "Cluster");
        assert_eq!(crd["metadata"]["name"], "loadbalancerippools.skep.dev");
        let version = &crd["spec"]["versions"][0];
        assert!(version["subresources"]["status"].is_object());
        let spec = &version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        assert!(spec["allowFirstLastIPs"].is_object() && spec["serviceSelector"].is_object());
        assert!(spec["blocks"]["items"]["properties"]["cidr"]["pattern"].is_string());
    }
}
