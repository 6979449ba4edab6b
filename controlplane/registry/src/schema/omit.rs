//! Which optional scalars of built-in kinds are dropped when empty.
//!
//! Upstream's types leave out zero values of plain fields and keep those of pointer fields; OpenAPI does not say
//! which is which. Texts are mostly plain, truth values and numbers mostly pointers, so the exceptions are listed.

use super::Kind;

/// Texts whose empty value means something.
const KEPT_STRINGS: &[&str] = &[
    "storageClassName",
    "volumeAttributesClassName",
    "ingressClassName",
    "apiGroup",
    "zone",
    "holderIdentity",
    "localhostProfile",
    "appProtocol",
    "runtimeClassName",
    "loadBalancerClass",
    "timeZone",
];
/// Truth values that are dropped when false.
const DROPPED_BOOLS: &[&str] = &[
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "stdin",
    "stdinOnce",
    "tty",
    "readOnly",
    "unschedulable",
    "paused",
    "publishNotReadyAddresses",
    "globalDefault",
    "chapAuthDiscovery",
    "chapAuthSession",
    "deprecated",
    "nullable",
    "uniqueItems",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "denied",
    "authenticated",
    "preserveUnknownFields",
    "insecureSkipTLSVerify",
];
/// Numbers that are dropped when zero.
const DROPPED_INTEGERS: &[&str] = &[
    "observedGeneration",
    "generation",
    "minReadySeconds",
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
    "hostPort",
    "nodePort",
    "healthCheckNodePort",
    "count",
    "partition",
];
/// Numbers of status objects that are kept when zero.
const KEPT_STATUS_INTEGERS: &[&str] =
    &["ready", "terminating", "collisionCount", "terminatingReplicas", "currentCPUUtilizationPercentage"];

/// Whether an empty value of that optional field is the same as none.
pub(super) fn empty_means_absent(owner: &str, name: &str, kind: &Kind) -> bool {
    let owner = owner.rsplit('.').next().unwrap_or_default();
    match kind {
        Kind::String => !KEPT_STRINGS.contains(&name),
        Kind::Bool => {
            DROPPED_BOOLS.contains(&name)
                && !(name == "readOnly" && matches!(owner, "CSIVolumeSource" | "AzureDiskVolumeSource"))
        }
        Kind::Int32 | Kind::Int64 => {
            let pointer =
                owner == "RollingUpdateStatefulSetStrategy" || owner.ends_with("WebhookConfiguration");
            let status = owner.ends_with("Status") && !KEPT_STATUS_INTEGERS.contains(&name);
            !pointer && (status || DROPPED_INTEGERS.contains(&name)) && !owner.ends_with("Webhook")
        }
        _ => false,
    }
}
