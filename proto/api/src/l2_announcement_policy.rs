//! `L2AnnouncementPolicy`: which addresses of Services are announced on the local network, by which nodes, on which
//! of their devices. Without any policy all of them are, by all nodes, on every uplink.

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector},
};
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Label of the Leases by which nodes agree on who announces an address.
pub const LEASE_LABEL: &str = "skep.dev/l2-announcement";
/// Annotation of such a Lease: the address.
pub const LEASE_ADDRESS: &str = "skep.dev/l2-address";
/// Annotation of such a Lease: the Services behind the address, separated by commas.
pub const LEASE_SERVICES: &str = "skep.dev/l2-services";

/// Who announces what and where. A Service is announced when any policy selects it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "skep.dev",
    version = "v1alpha1",
    kind = "L2AnnouncementPolicy",
    plural = "l2announcementpolicies",
    singular = "l2announcementpolicy",
    shortname = "l2policy",
    status = "L2AnnouncementPolicyStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct L2AnnouncementPolicySpec {
    /// The nodes that may announce; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// The Services that are announced; all of the class `skep.dev/l2` when absent. Besides the Service's labels it
    /// may name `io.kubernetes.service.namespace` and `io.kubernetes.service.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_selector: Option<LabelSelector>,
    /// Regular expressions of which a device's name must match one; every uplink when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub interfaces: Vec<String>,
    /// Announces the addresses in the Services' status.
    #[serde(default = "yes", rename = "loadBalancerIPs")]
    pub load_balancer_ips: bool,
    /// Announces the Services' external IPs, as far as the cluster's settings allow these at all.
    #[serde(default = "yes", rename = "externalIPs")]
    pub external_ips: bool,
}

fn yes() -> bool {
    true
}

/// How a policy fares.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct L2AnnouncementPolicyStatus {
    /// `Ready`; false when the policy cannot be understood, and then it announces nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// The definition to install.
#[must_use]
pub fn definition() -> CustomResourceDefinition {
    L2AnnouncementPolicy::crd()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_says_nothing_announces_everything() {
        let spec: L2AnnouncementPolicySpec = serde_json::from_str("{}").unwrap();
        assert!(spec.load_balancer_ips && spec.external_ips && spec.service_selector.is_none());
        let crd = serde_json::to_value(definition()).unwrap();
        assert_eq!(crd["metadata"]["name"], "l2announcementpolicies.skep.dev");
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert_eq!(schema["properties"]["spec"]["properties"]["externalIPs"]["default"], true);
    }
}
